package cloudformation

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// stubs stand in for the programs that deploy calls. The AWS CLI notes what it is asked for, and a variable of the test
// says what is wrong.
var stubs = map[string]string{
	"aws": `
		all="$*"
		case "$1 $2" in
		"cloudformation describe-stacks")
			name=${all#*--stack-name } name=${name%% *}
			case $all in
			*Parameters*)
				[ -z "$UNREADABLE" ] || exit 255
				for file in "$STATE/$name".*; do
					if [ -e "$file" ]; then printf '%s\t%s\n' "${file##*.}" "$(cat "$file")"; fi
				done ;;
			*Outputs*Network*) echo 'awsvpcConfiguration={subnets=[a,b],securityGroups=[c],assignPublicIp=DISABLED}' ;;
			*Outputs*) echo arn:aws:ecs:r:1:task-definition/x:7 ;;
			*) if [ -e "$STATE/$name" ]; then cat "$STATE/$name"; else exit 254; fi ;;
			esac ;;
		"cloudformation execute-change-set")
			name=${all#*--stack-name } name=${name%% *}
			printf '%s\n' "$all" >>"$CALLS"
			echo "${AFTER:-UPDATE_COMPLETE}" >"$STATE/$name" ;;
		"cloudformation wait") [ -z "$UNCHANGED" ] ;;
		"cloudformation describe-change-set")
			case $all in
			*StatusReason*) echo "${UNCHANGED:-}" ;;
			*Replacement==*) printf '%b' "${LOST:-}" ;;
			*) echo "the changes" ;;
			esac ;;
		"cloudformation describe-stack-events") echo "EdgeService circuit breaker" ;;
		"sts get-caller-identity") printf '123456789012\tarn:aws:sts::123456789012:assumed-role/x/y\n' ;;
		"ecr describe-images") [ -e "$STATE/pushed" ] && echo sha256:` + strings.Repeat("0", 64) + ` ;;
		"ecr get-authorization-token") echo https://123456789012.dkr.ecr.r.amazonaws.com ;;
		"ecr get-login-password") echo hunter2 ;;
		"ecs run-task") printf '%s\n' "$all" >>"$CALLS"; echo "${TASK:-arn:aws:ecs:r:1:task/stampede/abc}" ;;
		"ecs describe-tasks") printf 'STOPPED\t%s\n' "${CODE:-0}" ;;
		"logs get-log-events") echo "schema version 13" ;;
		*) printf '%s\n' "$all" >>"$CALLS" ;;
		esac`,
	"docker": `
		echo "docker $*" >>"$CALLS"
		if [ "$1" = push ]; then touch "$STATE/pushed"; fi
		if [ "$1" = login ]; then cat >/dev/null; fi`,
	"curl":  `case "$*" in */readyz) echo ok ;; */api/me) echo "${ME:-401}" ;; *) echo '{"products":[]}' ;; esac`,
	"sleep": `:`,
}

// deployment is a run of deploy with stubs.
type deployment struct{ dir string }

func newDeployment(t *testing.T) deployment {
	t.Helper()
	for _, program := range []string{"bash", "git", "sed", "cut", "grep", "date"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("there is no %s", program)
		}
	}
	d := deployment{t.TempDir()}
	for name, script := range stubs {
		if err := os.WriteFile(filepath.Join(d.dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// run returns what was changed, line by line, and what was said.
func (d deployment) run(t *testing.T, env []string, args ...string) (calls []string, said string, err error) {
	t.Helper()
	path := filepath.Join(d.dir, "calls")
	_ = os.Remove(path)
	cmd := exec.Command("./deploy", args...)
	cmd.Env = append([]string{
		"PATH=" + d.dir + ":" + os.Getenv("PATH"), "CALLS=" + path, "STATE=" + d.dir, "AWS_REGION=r", "TAG=abc",
		"URL=https://sale.example.org",
		"CERTIFICATE_ARN=arn:aws:acm:r:1:certificate/x",
	}, env...)
	out, err := cmd.CombinedOutput()
	text, _ := os.ReadFile(path)
	return strings.Split(strings.TrimSpace(string(text)), "\n"), string(out), err
}

var created = regexp.MustCompile(`^cloudformation create-change-set --stack-name \S+-(\w+) .*--change-set-type (\w+) `)

// steps are the calls that matter, in short.
func steps(calls []string) string {
	var all []string
	for _, call := range calls {
		if m := created.FindStringSubmatch(call); m != nil {
			all = append(all, m[2]+" "+m[1])
		} else if strings.HasPrefix(call, "ecs run-task") {
			all = append(all, "run")
		} else if strings.HasPrefix(call, "cloudformation execute-change-set") {
			all = append(all, "execute")
		} else if strings.HasPrefix(call, "docker push") {
			all = append(all, "push")
		}
	}
	return strings.Join(all, ", ")
}

func TestDeploy(t *testing.T) {
	d := newDeployment(t)
	calls, said, err := d.run(t, nil, "all")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	want := "push, CREATE network, execute, CREATE data, execute, CREATE cluster, execute, run, CREATE " +
		"services, execute"
	if got := steps(calls); got != want {
		t.Errorf("it did %s\nwant %s", got, want)
	}
	if strings.Contains(strings.Join(calls, "\n")+said, "hunter2") {
		t.Error("the password of the registry is told")
	}
	for _, call := range calls {
		m := created.FindStringSubmatch(call)
		if m == nil {
			if strings.HasPrefix(call, "ecs run-task") &&
				!strings.Contains(call, "--task-definition arn:aws:ecs:r:1:task-definition/x:7 "+
					"--network-configuration awsvpcConfiguration={subnets=[a,b]") {
				t.Errorf("the migration is run by %s", call)
			}
			continue
		}
		stack := m[1]
		if !strings.Contains(call, "/"+stack+".yaml ") ||
			!strings.Contains(call, "--role-arn arn:aws:iam::123456789012:role/stampede-cloudformation ") {
			t.Errorf("%s is made by %s", stack, call)
		}
		if stack != "network" && stack != "data" && !strings.Contains(call, "@sha256:") {
			t.Errorf("%s gets no image by digest: %s", stack, call)
		}
	}

	// Again, when all is there: nothing is built, and stacks are updated.
	calls, said, err = d.run(t, nil, "all")
	if got, want := steps(calls), "UPDATE network, execute, UPDATE data, execute, UPDATE cluster, execute, run, "+
		"UPDATE services, execute"; err != nil || got != want {
		t.Errorf("it did %s, want %s; %v\n%s", got, want, err, said)
	}
	calls, said, err = d.run(t, []string{"UNCHANGED=The submitted information didn't contain changes."}, "data")
	if got := steps(calls); err != nil || got != "UPDATE data" || !strings.Contains(said, "nothing to change") {
		t.Errorf("without changes it did %s; %v\n%s", got, err, said)
	}
}

// TestDeployParameters: each parameter of a template can be given, under a name that exists, and none is made up.
func TestDeployParameters(t *testing.T) {
	d := newDeployment(t)
	calls, said, err := d.run(t, []string{
		"NAME=shop", "SIZE=large", "ALARM_EMAIL=a@b", "VPC_CIDR=10.0.0.0/16", "MONITORING_SECURITY_GROUP=sg-1",
		"REDIS_DURABILITY=sync", "EDGE_MINIMUM=9", "RESERVED_LCU=200", "LOG_LEVEL=warn",
		"TRACE_ENDPOINT=http://collector:4318", "FRONT=https://sale.example.org", "PAYMENT_SECRET=arn:x",
		"PAYMENT_TEST_MODE=true", "POINT_PRICE=2", "POINT_CURRENCY=USD",
	}, "all")
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	for _, call := range calls {
		m := created.FindStringSubmatch(call)
		if m == nil {
			continue
		}
		var given []string
		for _, p := range regexp.MustCompile(`ParameterKey=(\w+),ParameterValue=\S`).FindAllStringSubmatch(call, -1) {
			given = append(given, p[1])
		}
		slices.Sort(given)
		if want := slices.Sorted(maps.Keys(load(t, m[1]).section("Parameters"))); !slices.Equal(given, want) {
			t.Errorf("%s is given %v, has %v", m[1], given, want)
		}
		if !strings.Contains(call, "ParameterKey=Name,ParameterValue=shop") ||
			!strings.Contains(call, "--stack-name shop-"+m[1]) {
			t.Errorf("%s has another name: %s", m[1], call)
		}
	}
}

// TestDeployKeepsParameters: what is not given stays as the stack has it, and a parameter that the stack does not have
// yet gets the template's value. Less than the stack has is given only if that is meant.
func TestDeployKeepsParameters(t *testing.T) {
	for name, test := range map[string]struct {
		env  []string
		part string
		want string // the parameters, or what is said if it stops
		said bool
	}{
		"nothing is given": {nil, "data",
			"ParameterKey=Name,ParameterValue=stampede ParameterKey=Size,UsePreviousValue=true " +
				"ParameterKey=AlarmEmail,UsePreviousValue=true", false},
		"another value": {[]string{"ALARM_EMAIL=b@c"}, "data", "ParameterKey=AlarmEmail,ParameterValue=b@c", false},
		"the certificate that it has": {[]string{"CERTIFICATE_ARN="}, "services",
			"ParameterKey=CertificateArn,UsePreviousValue=true ParameterKey=EdgeMinimum,UsePreviousValue=true", false},
		"a smaller database, fewer shards": {[]string{"SIZE=small"}, "data",
			"stampede-data: Size is large, and would be only small", true},
		"smaller services": {[]string{"SIZE=small"}, "services", "stampede-services: Size is large",
			true},
		"fewer edges": {[]string{"EDGE_MINIMUM=3"}, "services",
			"EdgeMinimum is 12, and would be only 3", true},
		"fewer edges, by the size": {[]string{"EDGE_MINIMUM=0"}, "services",
			"EdgeMinimum is 12, and would be only 0", true},
		"fewer edges that are meant": {[]string{"EDGE_MINIMUM=3", "ALLOW_SMALLER=yes"}, "services",
			"ParameterKey=EdgeMinimum,ParameterValue=3", false},
		"parameters that cannot be read": {[]string{"UNREADABLE=1"}, "data", "its parameters cannot be read", true},
		"more edges": {[]string{"EDGE_MINIMUM=20"}, "services",
			"ParameterKey=EdgeMinimum,ParameterValue=20", false},
		"a smaller one that is meant": {[]string{"SIZE=small", "ALLOW_SMALLER=yes"}, "data",
			"ParameterKey=Size,ParameterValue=small", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeployment(t)
			for file, value := range map[string]string{
				"stampede-data": "UPDATE_COMPLETE", "stampede-data.Size": "large", "stampede-data.AlarmEmail": "a@b",
				"stampede-services": "UPDATE_COMPLETE", "stampede-services.Size": "large",
				"stampede-services.EdgeMinimum":    "12",
				"stampede-services.CertificateArn": "arn:aws:acm:r:1:certificate/y",
			} {
				if err := os.WriteFile(filepath.Join(d.dir, file), []byte(value+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}

			calls, said, err := d.run(t, test.env, test.part)

			got := strings.Join(calls, "\n")
			if test.said {
				got = said
			}
			if (err != nil) != test.said || !strings.Contains(got, test.want) {
				t.Errorf("want %q; %v; it called\n%s\nand said\n%s", test.want, err, strings.Join(calls, "\n"), said)
			}
			if test.said && strings.Contains(strings.Join(calls, "\n"), "create-change-set") {
				t.Error("it has made a change set")
			}
		})
	}
}

func TestDeployStops(t *testing.T) {
	for name, test := range map[string]struct {
		env         []string
		args, steps string
		said        string
	}{
		"a migration that fails": {[]string{"CODE=1"}, "all",
			"push, CREATE network, execute, CREATE data, execute, CREATE cluster, execute, run",
			"migrate ended with 1"},
		"a migration that is killed": {[]string{"CODE=None"}, "migrate", "run", "migrate ended with None"},
		"no place for the migration": {[]string{"TASK=None"}, "migrate", "run", "no place"},
		"a database that would be lost": {[]string{`LOST=AWS::RDS::DBInstance\tDatabase\n`}, "data", "CREATE data",
			"ALLOW_REPLACEMENT"},
		"a role that is replaced": {[]string{`LOST=AWS::IAM::Role\tEdgeRole\n`}, "data",
			"CREATE data, execute", "UPDATE_COMPLETE"},
		"a loss that is meant": {[]string{`LOST=AWS::SQS::Queue\tOrders\n`, "ALLOW_REPLACEMENT=yes"},
			"data", "CREATE data, execute", "UPDATE_COMPLETE"},
		"services that are rolled back": {[]string{"AFTER=UPDATE_ROLLBACK_COMPLETE"}, "services",
			"push, CREATE services, execute", "circuit breaker"},
		"a change set that is not made": {[]string{"UNCHANGED=Template error"}, "network", "CREATE network",
			"Template error"},
		"a smoke test without a shop":    {[]string{"ME=404"}, "smoke", "", "/api/me is answered with 404"},
		"no certificate":                 {[]string{"CERTIFICATE_ARN="}, "services", "push", "certificate"},
		"a command that is not there":    {nil, "frobnicate", "", "cloudformation/deploy all"},
		"a stack that could not be made": {[]string{"BEFORE=ROLLBACK_COMPLETE"}, "network", "", "delete it"},
		"a stack that somebody changes":  {[]string{"BEFORE=UPDATE_IN_PROGRESS"}, "network", "", "somebody else"},
		"a stack of which nothing is made": {[]string{"BEFORE=REVIEW_IN_PROGRESS"}, "network",
			"CREATE network, execute", "UPDATE_COMPLETE"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDeployment(t)
			for _, variable := range test.env {
				if status, ok := strings.CutPrefix(variable, "BEFORE="); ok {
					if err := os.WriteFile(filepath.Join(d.dir, "stampede-network"), []byte(status+"\n"),
						0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			calls, said, err := d.run(t, test.env, test.args)
			if fails := test.said != "UPDATE_COMPLETE"; (err != nil) != fails || steps(calls) != test.steps ||
				!strings.Contains(said, test.said) {
				t.Errorf("it did %s, want %s; %v; it said:\n%s", steps(calls), test.steps, err, said)
			}
		})
	}
}

// TestDeployCtl: arguments reach the command as they are.
func TestDeployCtl(t *testing.T) {
	d := newDeployment(t)
	calls, said, err := d.run(t, nil, "ctl", "product", "add", "--name", `Concert "ticket" \`, "--stock", "500")
	want := `--overrides {"containerOverrides":[{"name":"ctl","command":["product","add","--name","Concert \"ticket\" \\","--stock","500"]}]}`
	if err != nil || len(calls) != 1 || !strings.Contains(calls[0], want) {
		t.Errorf("it called %q; %v\n%s", calls, err, said)
	}
}

// TestWorkflow: the workflow has no more rights than it needs, runs what cannot be changed under it, and ends.
func TestWorkflow(t *testing.T) {
	source := read(t, "../.github/workflows/deploy.yml")
	var workflow struct {
		Permissions map[string]string
		Concurrency struct {
			Group  string
			Cancel bool `yaml:"cancel-in-progress"`
		}
		Jobs map[string]struct {
			Timeout     int `yaml:"timeout-minutes"`
			Permissions map[string]string
			Env         map[string]string
			Steps       []struct {
				Uses, Run string
				With      map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(source), &workflow); err != nil {
		t.Fatal(err)
	}
	if len(workflow.Permissions) != 0 || !strings.Contains(source, "\npermissions: {}\n") {
		t.Errorf("every job may %v", workflow.Permissions)
	}
	if workflow.Concurrency.Group == "" || workflow.Concurrency.Cancel {
		t.Errorf("deployments may overlap or be cut off: %+v", workflow.Concurrency)
	}
	job, ok := workflow.Jobs["deploy"]
	if !ok || len(workflow.Jobs) != 1 || !maps.Equal(job.Permissions,
		map[string]string{"contents": "read", "id-token": "write"}) || job.Timeout == 0 || job.Timeout > 120 {
		t.Fatalf("the jobs are %+v", workflow.Jobs)
	}
	var order []string
	for _, step := range job.Steps {
		if step.Uses != "" && !regexp.MustCompile(`uses: `+regexp.QuoteMeta(step.Uses)+
			` # v\d+\.\d+\.\d+\n`).MatchString(source) {
			t.Errorf("%s has no version beside it", step.Uses)
		}
		if step.Uses != "" && !regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40}$`).MatchString(step.Uses) {
			t.Errorf("%s is not pinned to a commit", step.Uses)
		}
		if step.Run != "" {
			part, found := strings.CutPrefix(step.Run, "cloudformation/deploy ")
			if !found {
				t.Errorf("a step runs %s", step.Run)
			}
			order = append(order, part)
		}
	}
	if got := strings.Join(order, " "); got != "images network data cluster migrate services smoke" {
		t.Errorf("the order is %s", got)
	}
	// The variables are those that deploy reads.
	script := read(t, "deploy")
	for name := range job.Env {
		if !strings.Contains(script, "${"+name) {
			t.Errorf("deploy does not read %s", name)
		}
	}
	for _, m := range regexp.MustCompile(`\$\{([A-Z][A-Z_]+):`).FindAllStringSubmatch(script, -1) {
		if job.Env[m[1]] == "" && !slices.Contains([]string{"ALLOW_REPLACEMENT", "ALLOW_SMALLER", "AWS_REGION",
			"AWS_DEFAULT_REGION"}, m[1]) {
			t.Errorf("deploy reads %s, which the workflow does not give it", m[1])
		}
	}
	// The role lasts for as long as the workflow may.
	for _, step := range job.Steps {
		if strings.HasPrefix(step.Uses, "aws-actions/") {
			role := at(deploy(t, parameters("small"))["bootstrap"]["DeployRole"], "Properties", "MaxSessionDuration")
			if step.With["role-duration-seconds"] != text(role) || number(t, role) < float64(job.Timeout*60) {
				t.Errorf("the role is taken for %s s, may be taken for %v, and the job takes %d minutes",
					step.With["role-duration-seconds"], role, job.Timeout)
			}
		}
	}
}

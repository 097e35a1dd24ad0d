package localstack

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"stampede/internal/config/configtest"
	"stampede/internal/queue"
)

// composeFile has the keys that our files use. A key that it does not know is an error, and so is a misspelt one.
type composeFile struct {
	Services map[string]*composeService
	Volumes  map[string]any
	Networks map[string]struct {
		IPAM struct {
			Config []struct {
				Subnet, Gateway string
				Range           string `yaml:"ip_range"`
			}
		}
	}
	Anchors map[string]any `yaml:",inline"`
}

type composeService struct {
	Image       string
	Build       struct{ Context, Target string }
	Profiles    []string
	Command     []string
	Environment map[string]string
	Ports       []string
	Volumes     []string
	Tmpfs       []string
	Networks    map[string]struct {
		Address string `yaml:"ipv4_address"`
	}
	Restart         string
	ReadOnly        bool     `yaml:"read_only"`
	CapDrop         []string `yaml:"cap_drop"`
	SecurityOpt     []string `yaml:"security_opt"`
	MemLimit        string   `yaml:"mem_limit"`
	StopGracePeriod string   `yaml:"stop_grace_period"`
	Deploy          struct{ Replicas int }
	DependsOn       dependencies `yaml:"depends_on"`
	Healthcheck     struct {
		Test              []string
		Interval, Timeout string
		StartPeriod       string `yaml:"start_period"`
		Retries           int
	}
}

// dependencies are the services that one waits for, and the condition of each: a mapping, or a list of names.
type dependencies map[string]string

func (d *dependencies) UnmarshalYAML(node *yaml.Node) error {
	*d = dependencies{}
	var names []string
	if err := node.Decode(&names); err == nil {
		for _, name := range names {
			(*d)[name] = "service_started"
		}
		return nil
	}
	var conditions map[string]struct{ Condition string }
	err := node.Decode(&conditions)
	for name, c := range conditions {
		(*d)[name] = c.Condition
	}
	return err
}

func readCompose(t *testing.T, path string) composeFile {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(read(t, path)))
	decoder.KnownFields(true)
	var file composeFile
	if err := decoder.Decode(&file); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for name := range file.Anchors {
		if !strings.HasPrefix(name, "x-") {
			t.Errorf("%s has a section %s", path, name)
		}
	}
	return file
}

// own are the services that run our programs, with the commands of ctl that they are for.
var own = map[string]struct {
	program  string
	commands [][]string
}{
	"edge":    {program: "edge"},
	"shop":    {program: "shop"},
	"worker":  {program: "worker"},
	"migrate": {"ctl", [][]string{{"migrate"}}},
	"ctl": {"ctl", [][]string{
		{"audit"}, {"token"}, {"queues"}, {"product", "add"}, {"payment", "refund"},
	}},
}

// TestComposeEnvironment: each of our services sets every variable that its program needs, and none that it does not
// read.
func TestComposeEnvironment(t *testing.T) {
	t.Parallel()
	file := readCompose(t, "../docker-compose.yml")
	for name, o := range own {
		environment := file.Services[name].Environment
		commands := o.commands
		if commands == nil {
			commands = [][]string{nil}
		}
		known, aws := slices.Clone(configtest.Standard), false
		for _, command := range commands {
			for _, v := range configtest.Variables(t, "..", o.program, command...) {
				known = append(known, v.Name)
				aws = aws || v.Name == "ORDERS_QUEUE"
				if _, set := environment[v.Name]; v.Required && !set {
					t.Errorf("%s does not set %s, without which %s %s does not start", name, v.Name, o.program, command)
				}
			}
		}
		for variable, value := range environment {
			if !slices.Contains(known, variable) {
				t.Errorf("%s sets %s, which %s does not read", name, variable, o.program)
			}
			if strings.HasPrefix(variable, "AWS_") && !aws {
				t.Errorf("%s sets %s, and %s has nothing to do with the queue", name, variable, o.program)
			}
			if value == "" {
				t.Errorf("%s sets %s to nothing", name, variable)
			}
		}
		if aws {
			for variable, want := range map[string]string{
				"ORDERS_QUEUE": QueueName, "ORDERS_DLQ": DLQName, "AWS_REGION": Region,
				"AWS_ENDPOINT_URL_SQS": "http://sqs:4566", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
			} {
				if environment[variable] != want {
					t.Errorf("%s sets %s to %q", name, variable, environment[variable])
				}
			}
		}
		if got := environment["REDIS_URL"]; got != "redis://redis:6379/0" && slices.Contains(known, "REDIS_URL") {
			t.Errorf("%s sets REDIS_URL to %q", name, got)
		}
		mysql := file.Services["mysql"].Environment
		want := fmt.Sprintf("%s@tcp(mysql:3306)/%s", mysql["MYSQL_USER"], mysql["MYSQL_DATABASE"])
		if environment["MYSQL_DSN"] != want || mysql["MYSQL_DATABASE"] != DatabaseName {
			t.Errorf("%s sets MYSQL_DSN to %q, want %q in database %s", name, environment["MYSQL_DSN"], want,
				DatabaseName)
		}
		if environment["MYSQL_PASSWORD"] != mysql["MYSQL_PASSWORD"] {
			t.Errorf("%s has another password than mysql", name)
		}
	}
}

// TestComposeOwn: our programs may do what they need, and no more.
func TestComposeOwn(t *testing.T) {
	t.Parallel()
	file := readCompose(t, "../docker-compose.yml")
	for name, s := range file.Services {
		o, ours := own[name]
		if !ours {
			if s.Build.Target != "" {
				t.Errorf("%s is built here, and no test knows it", name)
			}
			continue
		}
		if s.Build.Context != "." || s.Build.Target != o.program || s.Image != "" {
			t.Errorf("%s is built from %+v, image %q", name, s.Build, s.Image)
		}
		if len(s.Volumes) > 0 || len(s.Tmpfs) > 0 {
			t.Errorf("%s has something to write to: %q %q", name, s.Volumes, s.Tmpfs)
		}
		limit, heap := size(t, s.MemLimit), size(t, s.Environment["GOMEMLIMIT"])
		if heap >= limit || heap < limit/2 {
			t.Errorf("%s may have %s, and its GOMEMLIMIT is %s", name, s.MemLimit, s.Environment["GOMEMLIMIT"])
		}
		// Health is asked for by what the image says, and a signal to stop is obeyed within 25 s.
		if len(s.Healthcheck.Test) > 0 {
			t.Errorf("%s has a health check that is not the image's", name)
		}
		if period, err := time.ParseDuration(s.StopGracePeriod); o.program != "ctl" &&
			(err != nil || period <= 25*time.Second) {
			t.Errorf("%s is killed after %q", name, s.StopGracePeriod)
		}
		if want := map[string]int{"worker": 2}[name]; s.Deploy.Replicas != want {
			t.Errorf("%s has %d replicas", name, s.Deploy.Replicas)
		}
	}
	for name := range own {
		if file.Services[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
	if got := file.Services["migrate"].Command; !slices.Equal(got, []string{"migrate"}) {
		t.Errorf("migrate runs %q", got)
	}
}

// size reads a number of bytes as Compose and GOMEMLIMIT write it.
func size(t *testing.T, text string) int64 {
	t.Helper()
	for _, unit := range []struct {
		suffix string
		bytes  int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"g", 1 << 30}, {"m", 1 << 20}} {
		if digits, ok := strings.CutSuffix(text, unit.suffix); ok {
			n, err := strconv.ParseInt(digits, 10, 32)
			if err != nil {
				t.Errorf("%q is no size", text)
			}
			return n * unit.bytes
		}
	}
	t.Errorf("%q is no size", text)
	return 0
}

// pinned is the name of an image whose tag says all of its version.
var pinned = regexp.MustCompile(`^[a-z0-9./-]+:v?\d+\.\d+\.\d+$`)

// TestComposeServices: what holds for all services.
func TestComposeServices(t *testing.T) {
	t.Parallel()
	file := readCompose(t, "../docker-compose.yml")
	profiles := map[string]string{"ctl": "tools", "prometheus": "monitoring", "grafana": "monitoring"}
	published := map[string]string{}
	for name, s := range file.Services {
		_, ours := own[name]
		if !ours && !pinned.MatchString(s.Image) {
			t.Errorf("%s has image %q, which does not say which version", name, s.Image)
		}
		if got := strings.Join(s.Profiles, " "); got != profiles[name] {
			t.Errorf("%s is in profile %q", name, got)
		}
		if !strings.HasPrefix(s.Restart, "on-failure:") {
			t.Errorf("%s is restarted %q, which has no bound", name, s.Restart)
		}
		size(t, s.MemLimit)
		if ours || name == "front" || profiles[name] == "monitoring" {
			if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) ||
				!slices.Equal(s.SecurityOpt, []string{"no-new-privileges:true"}) {
				t.Errorf("%s may do more than it needs: read_only %t, cap_drop %q, security_opt %q", name, s.ReadOnly,
					s.CapDrop, s.SecurityOpt)
			}
		}
		for _, port := range s.Ports {
			parts := strings.Split(port, ":")
			if len(parts) != 3 || parts[0] != "127.0.0.1" {
				t.Errorf("port %s of %s is open to other machines", port, name)
				continue
			}
			if other := published[parts[1]]; other != "" {
				t.Errorf("%s and %s both want port %s", name, other, parts[1])
			}
			published[parts[1]] = name + ":" + parts[2]
		}
		for dependency, condition := range s.DependsOn {
			other := file.Services[dependency]
			switch {
			case other == nil:
				t.Errorf("%s waits for %s, which does not exist", name, dependency)
			case condition == "service_healthy" && len(other.Healthcheck.Test) == 0 && own[dependency].program == "":
				t.Errorf("%s waits for the health of %s, which nobody asks for", name, dependency)
			case condition == "service_completed_successfully" && dependency != "migrate":
				t.Errorf("%s waits for the end of %s", name, dependency)
			}
		}
		for _, volume := range s.Volumes {
			source, rest, _ := strings.Cut(volume, ":")
			if !strings.HasPrefix(source, ".") {
				if _, ok := file.Volumes[source]; !ok {
					t.Errorf("%s has volume %s, which is not declared", name, source)
				}
				continue
			}
			if !strings.HasSuffix(rest, ":ro") {
				t.Errorf("%s may change %s", name, source)
			}
			// Docker would make an empty directory of what does not exist.
			if _, err := os.Stat(filepath.Join("..", source)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	want := map[string]string{
		"8080": "front:8080", "9090": "edge:9090", "9091": "prometheus:9090", "3000": "grafana:3000",
	}
	if !maps.Equal(published, want) {
		t.Errorf("published are %v, want %v", published, want)
	}

	// What the services of others are asked to do.
	if got := file.Services["sqs"]; got.Image != "localstack/localstack:4.14.0" ||
		got.Environment["SERVICES"] != "sqs" ||
		!slices.Contains(got.Volumes, "./localstack/init/ready.d:/etc/localstack/init/ready.d:ro") ||
		!strings.Contains(strings.Join(got.Healthcheck.Test, " "), "--queue-name "+QueueName) {
		t.Errorf("LocalStack is %+v", got)
	}
	redis := strings.Join(file.Services["redis"].Command, " ")
	for _, option := range []string{"--appendonly yes", "--maxmemory-policy noeviction", "--maxmemory 512mb"} {
		if !strings.Contains(redis, option) {
			t.Errorf("Redis is not started with %s", option)
		}
	}
	prometheus := file.Services["prometheus"]
	for _, option := range []string{"--storage.tsdb.retention.time=7d", "--storage.tsdb.retention.size=1GB"} {
		if !slices.Contains(prometheus.Command, option) {
			t.Errorf("Prometheus is not started with %s", option)
		}
	}
	provider := read(t, "../infra/grafana/provisioning/dashboards/stampede.yaml")
	if m := regexp.MustCompile(`path: (\S+)`).FindStringSubmatch(provider); m == nil ||
		!slices.Contains(file.Services["grafana"].Volumes, "./infra/grafana/dashboards:"+m[1]+":ro") {
		t.Errorf("Grafana looks for its dashboards in %q", m)
	}
	grafana := file.Services["grafana"].Environment
	for variable, want := range map[string]string{
		"GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer", "GF_AUTH_BASIC_ENABLED": "false", "GF_AUTH_DISABLE_LOGIN_FORM": "true",
		"GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
	} {
		if grafana[variable] != want {
			t.Errorf("Grafana has %s=%s: it lets people in with a password that everybody knows", variable,
				grafana[variable])
		}
	}
}

// TestComposeOrder: each service waits for what it needs, and for no more.
func TestComposeOrder(t *testing.T) {
	t.Parallel()
	file := readCompose(t, "../docker-compose.yml")
	healthy := dependencies{"redis": "service_healthy", "mysql": "service_healthy", "sqs": "service_healthy"}
	migrated := maps.Clone(healthy)
	migrated["migrate"] = "service_completed_successfully"
	withoutQueue := maps.Clone(migrated)
	delete(withoutQueue, "sqs")
	for name, want := range map[string]dependencies{
		"migrate": {"mysql": "service_healthy"}, "edge": migrated, "worker": migrated, "ctl": healthy,
		"shop": withoutQueue, "front": {"edge": "service_healthy", "shop": "service_healthy"},
		"grafana": {"prometheus": "service_started"},
	} {
		if got := file.Services[name].DependsOn; !maps.Equal(got, want) {
			t.Errorf("%s waits for %v, want %v", name, got, want)
		}
	}
}

// TestComposeFront: nginx runs with the configuration that its own test runs with, and edge and shop believe it, and
// nobody else, when it says who the client is.
func TestComposeFront(t *testing.T) {
	t.Parallel()
	file := readCompose(t, "../docker-compose.yml")
	front := file.Services["front"]
	if !slices.Equal(front.Volumes, []string{"./infra/nginx/nginx.conf:/etc/nginx/nginx.conf:ro"}) ||
		!slices.Equal(front.Tmpfs, []string{"/tmp"}) || front.Command != nil {
		t.Errorf("it has %q, may write to %q and runs %q", front.Volumes, front.Tmpfs, front.Command)
	}

	config := file.Networks["default"].IPAM.Config
	if len(config) != 1 {
		t.Fatalf("the network has %v", config)
	}
	prefix, ok := strings.CutSuffix(config[0].Subnet, ".0/24")
	address := front.Networks["default"].Address
	if !ok || address != prefix+".2" || config[0].Gateway != prefix+".1" || config[0].Range != prefix+".128/25" {
		t.Errorf("the network is %v, and the front door has the address %s", config[0], address)
	}
	for name, s := range file.Services {
		want := ""
		if name == "edge" || name == "shop" {
			want = address + "/32"
		}
		if got := s.Environment["TRUSTED_PROXIES"]; got != want {
			t.Errorf("%s believes %q, want %q", name, got, want)
		}
		if name != "front" && s.Networks != nil {
			t.Errorf("%s is in the networks %v", name, s.Networks)
		}
	}
}

// TestComposeSecrets: they come from outside, and whoever has none is told how to make one.
func TestComposeSecrets(t *testing.T) {
	t.Parallel()
	outside := regexp.MustCompile(`^\$\{(JWT_SECRET|MYSQL_PASSWORD):\?put it into \.env, made with - openssl rand -hex \d+\}$`)
	for name, s := range readCompose(t, "../docker-compose.yml").Services {
		for variable, value := range s.Environment {
			switch {
			case variable == "AWS_SECRET_ACCESS_KEY", variable == "MYSQL_RANDOM_ROOT_PASSWORD",
				strings.HasPrefix(variable, "GF_"):
			case strings.Contains(variable, "SECRET"), strings.Contains(variable, "PASSWORD"):
				if m := outside.FindStringSubmatch(value); m == nil || m[1] != variable {
					t.Errorf("%s of %s does not come from the environment: %s", variable, name, value)
				}
			}
		}
	}
	for _, file := range []string{"../docker-compose.yml", "../docker-compose.elasticmq.yml", "elasticmq.conf"} {
		if m := regexp.MustCompile(`[0-9a-fA-F]{16}`).FindString(read(t, file)); m != "" {
			t.Errorf("%s of %s looks like a secret", m, file)
		}
	}
}

// TestElasticMQ holds the file that puts ElasticMQ in the place of LocalStack, and its configuration, to what
// LocalStack is.
func TestElasticMQ(t *testing.T) {
	t.Parallel()
	base, over := readCompose(t, "../docker-compose.yml"), readCompose(t, "../docker-compose.elasticmq.yml")
	sqs := over.Services["sqs"]
	if sqs == nil || len(over.Services) != 1 {
		t.Fatalf("it changes %v", slices.Collect(maps.Keys(over.Services)))
	}
	if !pinned.MatchString(sqs.Image) || !strings.HasPrefix(sqs.Image, "softwaremill/elasticmq-native:") {
		t.Errorf("the image is %q", sqs.Image)
	}
	if !slices.Equal(sqs.Volumes, []string{"./localstack/elasticmq.conf:/opt/elasticmq.conf:ro"}) {
		t.Errorf("its volumes are %q", sqs.Volumes)
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(base.Services["edge"].Environment["AWS_ENDPOINT_URL_SQS"], "http://"),
		":")
	if health := strings.Join(sqs.Healthcheck.Test, " "); port == "" || strings.Count(health, port) != 2 {
		t.Errorf("the programs use port %s, and health is asked for with %s", port, health)
	}

	seconds := fmt.Sprintf("%.0f seconds", queue.VisibilityTimeout.Seconds())
	want := map[string]string{
		"node-address.host": "*", "node-address.port": port,
		"rest-sqs.bind-hostname": "0.0.0.0", "rest-sqs.bind-port": port, "rest-sqs.sqs-limits": "strict",
		"aws.region": Region,
		"queues." + QueueName + ".defaultVisibilityTimeout":         seconds,
		"queues." + QueueName + ".deadLettersQueue.name":            DLQName,
		"queues." + QueueName + ".deadLettersQueue.maxReceiveCount": strconv.Itoa(queue.MaxReceiveCount),
		"queues." + DLQName + ".defaultVisibilityTimeout":           seconds,
	}
	got := hocon(t, "elasticmq.conf")
	for key := range want {
		if got[key] != want[key] {
			t.Errorf("%s is %q, want %q", key, got[key], want[key])
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%s is set, and nothing is known of it", key)
		}
	}
}

// hocon reads the little of HOCON that our file uses: sections, settings of one line, and comments.
func hocon(t *testing.T, path string) map[string]string {
	t.Helper()
	settings := map[string]string{}
	var sections []string
	for line := range strings.Lines(read(t, path)) {
		line = strings.TrimSpace(line)
		name, value, isSetting := strings.Cut(line, " = ")
		section, isSection := strings.CutSuffix(line, " {")
		switch {
		case line == "", line[0] == '#', strings.HasPrefix(line, "include "):
		case line == "}" && len(sections) > 0:
			sections = sections[:len(sections)-1]
		case isSection:
			sections = append(sections, section)
		case isSetting:
			settings[strings.Join(append(slices.Clone(sections), name), ".")] = strings.Trim(value, `"`)
		default:
			t.Fatalf("%s: %q is more than this test can read", path, line)
		}
	}
	if len(sections) > 0 {
		t.Fatalf("%s: %v are not closed", path, sections)
	}
	return settings
}

package cloudformation

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// everything lists the actions that may be allowed for every resource, with the reason.
var everything = map[string]string{
	"ecr:GetAuthorizationToken":         "it knows no resource",
	"logs:DescribeLogGroups":            "it knows no resource",
	"secretsmanager:GetRandomPassword":  "it knows no resource",
	"ecs:DeregisterTaskDefinition":      "it knows no resource",
	"ecs:DescribeTaskDefinition":        "it knows no resource",
	"ec2:Describe…":                     "EC2 describes all or nothing; it changes nothing",
	"rds:Describe…":                     "half of them know no resource; they change nothing",
	"elasticache:Describe…":             "half of them know no resource; they change nothing",
	"elasticloadbalancing:Describe…":    "they know no resource and change nothing",
	"application-autoscaling:Describe…": "they know no resource and change nothing",
}

// anonymous lists the resources with a wildcard that does not come after the installation's name, with the reason.
var anonymous = map[string]string{
	"arn:aws:ec2:ap-southeast-2:123456789012:*":                                     "ids that are not known before their resources exist",
	"arn:aws:application-autoscaling:ap-southeast-2:123456789012:scalable-target/*": "ids that are not known before their resources exist",
	"arn:aws:kms:ap-southeast-2:123456789012:key/*":                                 "AWS's own keys have other ids in each account; only by way of three services",
	"arn:aws:secretsmanager:ap-southeast-2:123456789012:secret:rds!db-*":            "RDS chooses the name of the secret that it manages",
	"arn:aws:iam::123456789012:role/aws-service-role/*":                             "roles of AWS's services; only of those in the condition",
	"arn:aws:s3:::prod-ap-southeast-2-starport-layer-bucket/*":                      "ECR's own bucket, whose objects are the layers of images",
}

// statement is one of a policy, with where it is.
type statement struct {
	where              string
	body               object
	actions, resources []string
}

// statements are those of all policies in a stack.
func statements(resources object) []statement {
	var found []statement
	walk(resources, "", func(path string, v any) {
		for _, s := range list(at(v, "Statement")) {
			st := statement{where: path, body: s.(object)}
			for _, a := range list(at(s, "Action")) {
				st.actions = append(st.actions, text(a))
			}
			for _, r := range list(at(s, "Resource")) {
				st.resources = append(st.resources, text(r))
			}
			found = append(found, st)
		}
	})
	return found
}

var action = regexp.MustCompile(`^[a-z0-9-]+:[A-Za-z0-9]+$`)

// TestPolicies: nobody is allowed everything, in actions or in resources, but for the exceptions above.
func TestPolicies(t *testing.T) {
	d := deploy(t, parameters("small"))
	name := parameters("small")["Name"]
	excepted := map[string]bool{}
	for _, stack := range stacks {
		for _, s := range statements(d[stack]) {
			where := stack + s.where
			trust := strings.Contains(s.where, "AssumeRolePolicyDocument")
			for _, key := range []string{"NotAction", "NotResource", "NotPrincipal"} {
				if s.body[key] != nil {
					t.Errorf("%s: %s allows what is not named", where, key)
				}
			}
			if s.body["Effect"] == "Deny" {
				continue
			}
			if s.body["Effect"] != "Allow" || len(s.actions) == 0 || (len(s.resources) == 0) != trust {
				t.Errorf("%s: %v", where, s.body)
			}
			if s.body["Principal"] == "*" && !strings.Contains(s.where, "S3Endpoint") {
				t.Errorf("%s: anybody may", where)
			}
			if trust && at(s.body, "Condition", "StringEquals") == nil {
				t.Errorf("%s: the role has no condition", where)
			}
			for _, a := range s.actions {
				if !action.MatchString(a) {
					t.Errorf("%s: action %s", where, a)
				}
			}
			for _, r := range s.resources {
				if r == "*" {
					for _, a := range s.actions {
						service, verb, _ := strings.Cut(a, ":")
						if everything[a] == "" && strings.HasPrefix(verb, "Describe") {
							a = service + ":Describe…"
						}
						if everything[a] == "" {
							t.Errorf("%s: %s is allowed for everything", where, a)
						}
						excepted[a] = true
					}
					// A role of the other stacks has its boundary; the one of CloudFormation stays in its region.
					if stack == "bootstrap" && !strings.Contains(s.where, "Boundary") &&
						!slices.Equal(s.actions, []string{"ecr:GetAuthorizationToken"}) &&
						at(s.body, "Condition", "StringEquals", "aws:RequestedRegion") == nil {
						t.Errorf("%s: everything in all regions", where)
					}
					continue
				}
				excepted[r] = true
				before, _, wildcard := strings.Cut(r, "*")
				if wildcard && !strings.Contains(before, name) && anonymous[r] == "" {
					t.Errorf("%s: %s is any resource", where, r)
				}
			}
			if slices.Contains(s.actions, "iam:PassRole") &&
				at(s.body, "Condition", "StringEquals", "iam:PassedToService") == nil {
				t.Errorf("%s: a role may be passed to anything", where)
			}
		}
	}
	for _, exceptions := range []map[string]string{everything, anonymous} {
		for exception := range exceptions {
			if !excepted[exception] {
				t.Errorf("nothing needs the exception for %s", exception)
			}
		}
	}
}

// TestRoles: the roles of tasks are bounded, and the bounds let through what the roles allow.
func TestRoles(t *testing.T) {
	d := deploy(t, withPayments())
	name := parameters("small")["Name"]
	boundary := statements(object{"x": d["bootstrap"]["Boundary"]})
	allows := func(action, resource string) bool {
		return slices.ContainsFunc(boundary, func(s statement) bool {
			return slices.Contains(s.actions, action) && slices.ContainsFunc(s.resources, func(pattern string) bool {
				prefix, _, _ := strings.Cut(pattern, "*")
				return pattern == "*" || resource == pattern || strings.Contains(pattern, "*") &&
					strings.HasPrefix(resource, prefix)
			})
		})
	}
	// What a word of the resolver stands for.
	arns := map[string]string{
		"<Orders.Arn>": ":sqs:R:A:NAME-orders", "<DeadLetters.Arn>": ":sqs:R:A:NAME-orders-dlq",
		"<MySQLPassword>":                       ":secretsmanager:R:A:secret:NAME/mysql",
		"<RedisPassword>":                       ":secretsmanager:R:A:secret:NAME/redis",
		"<JwtSecret>":                           ":secretsmanager:R:A:secret:NAME/jwt",
		"<Database.MasterUserSecret.SecretArn>": ":secretsmanager:R:A:secret:rds!db-x",
		"<EdgeLogs.Arn>":                        ":logs:R:A:log-group:/NAME/edge:*",
		"<ShopLogs.Arn>":                        ":logs:R:A:log-group:/NAME/shop:*",
		"<WorkerLogs.Arn>":                      ":logs:R:A:log-group:/NAME/worker:*",
		"<CtlLogs.Arn>":                         ":logs:R:A:log-group:/NAME/ctl:*",
		"<FlowLogs.Arn>":                        ":logs:R:A:log-group:/NAME/flow:*",
	}
	for _, stack := range stacks[1:] {
		for logical, role := range ofType(d[stack], "AWS::IAM::Role") {
			if role["PermissionsBoundary"] != "arn:aws:iam::123456789012:policy/"+name+"-boundary" ||
				role["Path"] != "/"+name+"/" || role["RoleName"] != nil || role["ManagedPolicyArns"] != nil {
				t.Errorf("%s: role %s is not bounded: %v", stack, logical, role)
			}
			for _, s := range statements(object{"x": role["Policies"]}) {
				for _, r := range s.resources {
					if arn, ok := arns[r]; ok {
						r = "arn:aws" + strings.NewReplacer("R", "ap-southeast-2", "A", "123456789012", "NAME",
							name).Replace(arn)
					}
					for _, a := range s.actions {
						if !allows(a, r) {
							t.Errorf("%s: role %s: the boundary does not allow %s of %s", stack, logical, a, r)
						}
					}
				}
			}
		}
	}
	if at(d["bootstrap"]["Boundary"], "Properties", "ManagedPolicyName") != name+"-boundary" {
		t.Error("the boundary has another name")
	}
	for _, s := range statements(object{"x": d["bootstrap"]["MakeNetwork"]}) {
		if slices.Contains(s.actions, "iam:CreateRole") &&
			at(s.body, "Condition", "ArnEquals", "iam:PermissionsBoundary") != "<Boundary>" {
			t.Error("CloudFormation may make roles without the boundary")
		}
		for _, a := range s.actions {
			if strings.Contains(a, "PermissionsBoundary") || a == "iam:AttachRolePolicy" ||
				strings.Contains(a, "PolicyVersion") {
				t.Errorf("with %s the boundary could be left", a)
			}
		}
	}
}

// TestPolicySizes: the limits of https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html, without
// blanks.
func TestPolicySizes(t *testing.T) {
	d := deploy(t, parameters("small"))
	size := func(v any) int {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return len(b) // it has no blanks but in texts
	}
	for _, stack := range stacks {
		for logical, policy := range ofType(d[stack], "AWS::IAM::ManagedPolicy") {
			if n := size(policy["PolicyDocument"]); n > 6144 {
				t.Errorf("%s: policy %s has %d characters", stack, logical, n)
			}
		}
		for logical, role := range ofType(d[stack], "AWS::IAM::Role") {
			if n := size(role["Policies"]); n > 10_240 {
				t.Errorf("%s: the policies of role %s have %d characters", stack, logical, n)
			}
			if n := size(role["AssumeRolePolicyDocument"]); n > 2048 {
				t.Errorf("%s: who may assume role %s takes %d characters", stack, logical, n)
			}
			if n := len(list(role["ManagedPolicyArns"])); n > 10 {
				t.Errorf("%s: role %s has %d policies", stack, logical, n)
			}
			if name, _ := role["RoleName"].(string); len(name) > 64 {
				t.Errorf("%s: role %s has a name of %d characters", stack, logical, len(name))
			}
		}
	}
}

// TestGitHubRole: only deployments of one environment of one repository may assume it, with tokens made for AWS.
func TestGitHubRole(t *testing.T) {
	given := parameters("small")
	trust := at(deploy(t, given)["bootstrap"]["DeployRole"], "Properties", "AssumeRolePolicyDocument", "Statement", 0)
	const issuer = "token.actions.githubusercontent.com"
	equals, _ := at(trust, "Condition", "StringEquals").(object)
	if equals[issuer+":aud"] != "sts.amazonaws.com" || equals[issuer+":sub"] != given["GitHubSubject"] ||
		len(at(trust, "Condition").(object)) != 1 {
		t.Errorf("the role's condition is %v", at(trust, "Condition"))
	}
	pattern := regexp.MustCompile("^(?:" + at(load(t, "bootstrap").section("Parameters")["GitHubSubject"],
		"AllowedPattern").(string) + ")$")
	for subject, want := range map[string]bool{
		"repo:o/r:environment:production": true, "repo:o@1/r.x@2:environment:a-b": true,
		"repo:o/*:environment:production": false, "repo:o/r:*": false, "repo:o/r:ref:refs/heads/main": false,
		"*": false,
	} {
		if pattern.MatchString(subject) != want {
			t.Errorf("subject %s: want %v", subject, want)
		}
	}
}

// TestQueueRights: edge, worker and ctl may call of SQS what the code calls, and no more.
func TestQueueRights(t *testing.T) {
	calls := map[string]bool{}
	files, _ := filepath.Glob("../internal/queue/*.go")
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`\.api\.([A-Z][A-Za-z]+)\(`).FindAllStringSubmatch(string(text), -1) {
			// The right to a call is also the right to its batch.
			calls["sqs:"+strings.TrimSuffix(m[1], "Batch")] = true
		}
	}
	if len(calls) < 5 {
		t.Fatalf("the code calls only %v", calls)
	}
	d := deploy(t, parameters("small"))
	rights := func(stack, role, queue string) map[string]bool {
		found := map[string]bool{}
		for _, s := range statements(object{"x": d[stack][role]}) {
			if slices.Contains(s.resources, queue) {
				for _, a := range s.actions {
					found[a] = true
				}
			}
		}
		return found
	}
	const orders, dead = "<Orders.Arn>", "<DeadLetters.Arn>"
	has := func(stack, role, queue string, verbs ...string) {
		t.Helper()
		got := rights(stack, role, queue)
		for _, verb := range verbs {
			if !got["sqs:"+verb] {
				t.Errorf("%s may not %s at %s", role, verb, queue)
			}
		}
		if len(got) != len(verbs) {
			t.Errorf("%s may %v at %s, want %v", role, got, queue, verbs)
		}
		for a := range got {
			if !calls[a] {
				t.Errorf("%s may %s, which nothing calls", role, a)
			}
		}
	}
	has("services", "EdgeRole", orders, "GetQueueUrl", "SendMessage")
	has("services", "EdgeRole", dead, "GetQueueUrl")
	has("services", "WorkerRole", orders, "GetQueueUrl", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility",
		"SendMessage")
	has("services", "WorkerRole", dead, "GetQueueUrl", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility",
		"SendMessage")
	has("cluster", "CtlRole", orders, "GetQueueUrl", "GetQueueAttributes", "SendMessage")
	has("cluster", "CtlRole", dead, "GetQueueUrl", "GetQueueAttributes", "ReceiveMessage", "DeleteMessage",
		"ChangeMessageVisibility")
	for call := range calls {
		used := false
		for _, role := range [][2]string{{"services", "EdgeRole"}, {"services", "WorkerRole"}, {"cluster", "CtlRole"}} {
			used = used || rights(role[0], role[1], orders)[call] || rights(role[0], role[1], dead)[call]
		}
		if !used {
			t.Errorf("the code calls %s, which nobody may", call)
		}
	}
}

var paymentSecret = "arn:aws:secretsmanager:ap-southeast-2:123456789012:secret:" + parameters("")["Name"] +
	"/payments-AbCdEf"

// withPayments are the parameters of a small installation with providers of payments.
func withPayments() map[string]string {
	given := parameters("small")
	given["PaymentSecret"] = paymentSecret
	given["Front"], given["PaymentTestMode"] = "https://sale.example.org", "true"
	return given
}

// TestSecretRights: a task is started with the secrets that its environment names, and its role reads no others.
func TestSecretRights(t *testing.T) {
	d := deploy(t, withPayments())
	for task, want := range map[string]string{
		"Shop": paymentSecret, "Worker": paymentSecret, "Edge": "", "Ctl": paymentSecret, "Migrate": "",
	} {
		if _, secrets := environment(t, container(d, task)); secrets["PAYMENT_SETTINGS"] != want {
			t.Errorf("%s has the settings of providers from %q", task, secrets["PAYMENT_SETTINGS"])
		}
	}
	if _, secrets := environment(t, container(deploy(t, parameters("small")), "Shop")); len(secrets) != 3 {
		t.Errorf("without payments the shop has the secrets %v", secrets)
	}
	for _, stack := range stacks {
		for logical, task := range ofType(d[stack], "AWS::ECS::TaskDefinition") {
			var named, readable []string
			for _, secret := range list(at(task["ContainerDefinitions"], 0, "Secrets")) {
				arn := text(at(secret, "ValueFrom"))
				if strings.HasPrefix(arn, "<") {
					arn, _, _ = strings.Cut(arn, ":")
				}
				named = append(named, arn)
			}
			role := strings.TrimSuffix(strings.TrimPrefix(text(task["ExecutionRoleArn"]), "<"), ".Arn>")
			for _, s := range statements(object{"x": d[stack][role]}) {
				if slices.Contains(s.actions, "secretsmanager:GetSecretValue") {
					readable = append(readable, s.resources...)
				}
			}
			slices.Sort(named)
			slices.Sort(readable)
			if len(named) == 0 || !slices.Equal(named, readable) {
				t.Errorf("%s: the environment has the secrets %v, the execution role reads %v", logical, named,
					readable)
			}
			if role := task["TaskRoleArn"]; role != nil {
				logical := strings.TrimSuffix(strings.TrimPrefix(text(role), "<"), ".Arn>")
				for _, s := range statements(object{"x": d[stack][logical]}) {
					for _, a := range s.actions {
						if !strings.HasPrefix(a, "sqs:") && !strings.HasPrefix(a, "sts:") {
							t.Errorf("%s may %s", logical, a)
						}
					}
				}
			}
		}
	}
}

// TestSecurityGroups: only the load balancer is open, on two ports. Everything else names the group that may come.
func TestSecurityGroups(t *testing.T) {
	given := parameters("small")
	given["MonitoringSecurityGroup"] = "sg-0123"
	network := deploy(t, given)["network"]
	for logical, group := range ofType(network, "AWS::EC2::SecurityGroup") {
		for _, rule := range list(group["SecurityGroupIngress"]) {
			port := text(at(rule, "FromPort"))
			if logical != "LoadBalancerGroup" || port != "443" && port != "80" || text(at(rule, "ToPort")) != port {
				t.Errorf("%s lets in %v", logical, rule)
			}
		}
		egress := list(group["SecurityGroupEgress"])
		if len(egress) == 0 {
			t.Errorf("%s lets everything out, as there is no rule", logical)
		}
		for _, rule := range egress {
			switch at(rule, "CidrIp") {
			case nil:
				if at(rule, "DestinationSecurityGroupId") == nil || at(rule, "FromPort") != at(rule, "ToPort") {
					t.Errorf("%s lets out %v", logical, rule)
				}
			case "127.0.0.1/32": // nothing
			default:
				if text(at(rule, "FromPort")) != "443" || text(at(rule, "ToPort")) != "443" ||
					logical == "LoadBalancerGroup" {
					t.Errorf("%s lets out %v", logical, rule)
				}
			}
		}
		if n := len(list(group["SecurityGroupIngress"])) + len(egress); n > 60 {
			t.Errorf("%s has %d rules", logical, n)
		}
	}
	reached := map[string]bool{}
	for logical, rule := range ofType(network, "AWS::EC2::SecurityGroupIngress") {
		if rule["SourceSecurityGroupId"] == nil || rule["CidrIp"] != nil || rule["CidrIpv6"] != nil ||
			rule["FromPort"] != rule["ToPort"] {
			t.Errorf("%s: %v", logical, rule)
		}
		reached[text(rule["SourceSecurityGroupId"])+" "+text(rule["GroupId"])+" "+text(rule["FromPort"])] = true
	}
	want := []string{
		"<LoadBalancerGroup> <EdgeGroup> 8080", "<LoadBalancerGroup> <ShopGroup> 8080", "sg-0123 <EdgeGroup> 9090",
		"sg-0123 <ShopGroup> 9090", "sg-0123 <WorkerGroup> 9090",
	}
	for _, who := range []string{"Edge", "Shop", "Worker", "Ctl"} {
		for _, to := range []string{"Database 3306", "Redis 6379", "Endpoint 443"} {
			group, port, _ := strings.Cut(to, " ")
			want = append(want, "<"+who+"Group> <"+group+"Group> "+port)
		}
	}
	for _, w := range want {
		if !reached[w] {
			t.Errorf("there is no rule %s", w)
		}
	}
	if len(reached) != len(want) {
		t.Errorf("there are %d rules: %v", len(reached), reached)
	}
	for logical, rule := range ofType(network, "AWS::EC2::SecurityGroupEgress") {
		if rule["DestinationSecurityGroupId"] != "sg-0123" || text(rule["FromPort"]) != "4318" ||
			text(rule["ToPort"]) != "4318" {
			t.Errorf("%s: %v", logical, rule)
		}
	}
	given["MonitoringSecurityGroup"] = ""
	for logical, rule := range ofType(deploy(t, given)["network"], "AWS::EC2::SecurityGroupIngress") {
		if text(rule["FromPort"]) == "9090" {
			t.Errorf("%s opens the admin port to nobody", logical)
		}
	}
}

// TestPrivateNetwork: nothing but the load balancer has a way to the internet.
func TestPrivateNetwork(t *testing.T) {
	d := deploy(t, parameters("small"))
	network := d["network"]
	for logical, route := range ofType(network, "AWS::EC2::Route") {
		if route["RouteTableId"] != "<PublicRoutes>" || route["NatGatewayId"] != nil {
			t.Errorf("route %s leads out: %v", logical, route)
		}
	}
	tables := map[string]string{}
	for _, association := range ofType(network, "AWS::EC2::SubnetRouteTableAssociation") {
		tables[text(association["SubnetId"])] = text(association["RouteTableId"])
	}
	for _, n := range []string{"1", "2"} {
		if tables["<PublicSubnet"+n+">"] != "<PublicRoutes>" || tables["<PrivateSubnet"+n+">"] != "<PrivateRoutes>" {
			t.Errorf("the subnets have the routes %v", tables)
		}
	}
	var services []string
	for logical, endpoint := range ofType(network, "AWS::EC2::VPCEndpoint") {
		services = append(services, strings.TrimPrefix(text(endpoint["ServiceName"]), "com.amazonaws.ap-southeast-2."))
		if endpoint["VpcEndpointType"] == "Interface" &&
			(endpoint["PrivateDnsEnabled"] != true || len(list(endpoint["SubnetIds"])) != 2 ||
				at(endpoint["SecurityGroupIds"], 0) != "<EndpointGroup>") {
			t.Errorf("endpoint %s: %v", logical, endpoint)
		}
	}
	slices.Sort(services)
	if got := strings.Join(services, " "); got != "ecr.api ecr.dkr logs s3 secretsmanager sqs" {
		t.Errorf("there are endpoints of %s", got)
	}
	private := func(where string, subnets any) {
		for _, s := range list(subnets) {
			if !strings.HasPrefix(text(s), "<PrivateSubnet") {
				t.Errorf("%s is in %v", where, s)
			}
		}
		if len(list(subnets)) != 2 {
			t.Errorf("%s is in %v", where, subnets)
		}
	}
	for logical, group := range ofType(d["data"], "AWS::RDS::DBSubnetGroup") {
		private(logical, group["SubnetIds"])
	}
	for logical, group := range ofType(d["data"], "AWS::ElastiCache::SubnetGroup") {
		private(logical, group["SubnetIds"])
	}
	for logical, service := range ofType(d["services"], "AWS::ECS::Service") {
		vpc := at(service["NetworkConfiguration"], "AwsvpcConfiguration")
		private(logical, at(vpc, "Subnets"))
		if at(vpc, "AssignPublicIp") != "DISABLED" {
			t.Errorf("%s has a public address", logical)
		}
	}
}

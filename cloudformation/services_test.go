package cloudformation

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"stampede/internal/config/configtest"
	"stampede/internal/queue"
	"stampede/localstack"
)

// tasks are the task definitions of the programs and commands.
var tasks = map[string]string{"Migrate": "cluster", "Ctl": "cluster", "Edge": "services", "Shop": "services",
	"Worker": "services"}

// container is the only one of a task.
func container(d deployed, task string) object {
	c, _ := at(d[tasks[task]][task], "Properties", "ContainerDefinitions", 0).(object)
	return c
}

// environment is what a container is given: values, and where secrets come from.
func environment(t testing.TB, c object) (values, secrets map[string]string) {
	values, secrets = map[string]string{}, map[string]string{}
	for _, v := range list(c["Environment"]) {
		values[text(at(v, "Name"))] = text(at(v, "Value"))
	}
	for _, v := range list(c["Secrets"]) {
		name := text(at(v, "Name"))
		if _, ok := values[name]; ok {
			t.Errorf("%s is given twice", name)
		}
		secrets[name] = text(at(v, "ValueFrom"))
	}
	if len(values) != len(list(c["Environment"])) || len(secrets) != len(list(c["Secrets"])) {
		t.Errorf("a variable is given twice: %v", c)
	}
	return values, secrets
}

// TestEnvironment: every variable that a program needs is set, and every one that is set is read.
func TestEnvironment(t *testing.T) {
	given := withPayments()
	given["TraceEndpoint"] = "http://collector:4318"
	d := deploy(t, given)
	// Together these read whatever a command of ctl reads that is run in the cluster.
	commands := [][]string{{"token"}, {"dlq", "redrive"}, {"refund", "done"}}
	read := map[string][]configtest.Variable{
		"Edge": configtest.Variables(t, "..", "edge"), "Shop": configtest.Variables(t, "..", "shop"),
		"Worker":  configtest.Variables(t, "..", "worker"),
		"Migrate": configtest.Variables(t, "..", "ctl", "migrate"),
	}
	for _, command := range commands {
		read["Ctl"] = append(read["Ctl"], configtest.Variables(t, "..", "ctl", command...)...)
	}
	for task := range tasks {
		values, secrets := environment(t, container(d, task))
		set := func(name string) bool { return values[name] != "" || secrets[name] != "" }
		known := map[string]bool{}
		for _, name := range configtest.Standard {
			known[name] = true
		}
		for _, v := range read[task] {
			known[v.Name] = true
			if v.Required && !set(v.Name) {
				t.Errorf("%s: %s is not set", task, v.Name)
			}
			// Passwords are optional, but addresses here have none.
			if strings.HasSuffix(v.Name, "_PASSWORD") && secrets[v.Name] == "" {
				t.Errorf("%s: %s is no secret", task, v.Name)
			}
		}
		for name, value := range values {
			if !known[name] {
				t.Errorf("%s: %s is set, and nothing reads it", task, name)
			}
			if strings.Contains(name, "PASSWORD") || strings.Contains(name, "SECRET") || value == "" {
				t.Errorf("%s: %s is set in the open to %q", task, name, value)
			}
		}
		for name, from := range secrets {
			if !known[name] {
				t.Errorf("%s: %s is set, and nothing reads it", task, name)
			}
			if !strings.HasPrefix(from, "<") && from != paymentSecret {
				t.Errorf("%s: %s comes from %q", task, name, from)
			}
		}
		if dsn := values["MYSQL_DSN"]; !strings.HasSuffix(dsn,
			"@tcp(<Database.Endpoint.Address>:3306)/stampede?tls=true") ||
			strings.HasPrefix(dsn, "admin@") != (task == "Migrate") {
			t.Errorf("%s: MYSQL_DSN is %s", task, dsn)
		}
		if task != "Migrate" {
			host := "<Redis.ConfigurationEndPoint.Address>:6379"
			if values["REDIS_URL"] != "rediss://"+host+","+host {
				t.Errorf("%s: REDIS_URL is %s", task, values["REDIS_URL"])
			}
			if task != "Shop" && (values["ORDERS_QUEUE"] != "<Orders.QueueName>" ||
				values["ORDERS_DLQ"] != "<DeadLetters.QueueName>" ||
				values["AWS_REGION"] != "ap-southeast-2") {
				t.Errorf("%s: the queues are %v", task, values)
			}
			if secrets["MYSQL_PASSWORD"] != "<MySQLPassword>" || secrets["REDIS_PASSWORD"] != "<RedisPassword>" {
				t.Errorf("%s: the secrets are %v", task, secrets)
			}
		}
	}

	// The migration comes as the master user, and makes the user whose password the others have.
	c := container(d, "Migrate")
	_, secrets := environment(t, c)
	command := list(c["Command"])
	appUser, _, _ := strings.Cut(environmentOf(t, d, "Edge", "MYSQL_DSN"), "@")
	if secrets["MYSQL_PASSWORD"] != "<Database.MasterUserSecret.SecretArn>:password::" ||
		secrets["MYSQL_APP_PASSWORD"] != "<MySQLPassword>" ||
		!slices.Equal(command, []any{"migrate", "--app-user", appUser}) || appUser == "admin" {
		t.Errorf("the migration has %v and runs %v for user %s", secrets, command, appUser)
	}
	database := at(d["data"]["Database"], "Properties")
	if at(database, "MasterUsername") != "admin" || at(database, "DBName") != "stampede" {
		t.Errorf("the database is %v", database)
	}
}

// TestTrustedProxies: edge and shop believe the load balancer, which is in the public subnets.
func TestTrustedProxies(t *testing.T) {
	d := deploy(t, parameters("small"))
	for _, task := range []string{"Edge", "Shop"} {
		if got := environmentOf(t, d, task,
			"TRUSTED_PROXIES"); got != "<PublicSubnet1.CidrBlock>,<PublicSubnet2.CidrBlock>" {
			t.Errorf("%s: TRUSTED_PROXIES is %s", task, got)
		}
	}
	var public []string
	for _, s := range list(at(d["services"]["LoadBalancer"], "Properties", "Subnets")) {
		public = append(public, text(s))
	}
	if !slices.Equal(public, []string{"<PublicSubnet1>", "<PublicSubnet2>"}) {
		t.Errorf("the load balancer is in %v", public)
	}
}

func environmentOf(t testing.TB, d deployed, task, name string) string {
	values, _ := environment(t, container(d, task))
	return values[name]
}

// fargate has the memory in MiB that goes with so many CPU units: lowest, highest and step
// (https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html).
var fargate = map[int][3]int{
	256: {512, 2048, 512}, 512: {1024, 4096, 1024}, 1024: {2048, 8192, 1024}, 2048: {4096, 16_384, 1024},
	4096: {8192, 30_720, 1024},
	8192: {16_384, 61_440, 4096}, 16_384: {32_768, 122_880, 8192},
}

// ports are those that each task listens on.
var ports = map[string]string{"Edge": "8080 9090", "Shop": "8080 9090", "Worker": "9090"}

func TestTasks(t *testing.T) {
	d := deploy(t, parameters("small"))
	name := parameters("small")["Name"]
	dockerfile := read(t, "../Dockerfile")
	found := 0
	for stack := range d {
		found += len(ofType(d[stack], "AWS::ECS::TaskDefinition"))
	}
	if found != len(tasks) {
		t.Errorf("there are %d tasks", found)
	}
	for task, stack := range tasks {
		p := at(d[stack][task], "Properties")
		cpu, memory := int(number(t, at(p, "Cpu"))), int(number(t, at(p, "Memory")))
		bounds, ok := fargate[cpu]
		if !ok || memory < bounds[0] || memory > bounds[1] || (memory-bounds[0])%bounds[2] != 0 || memory == 1536 {
			t.Errorf("%s: Fargate has no %d CPU units with %d MiB", task, cpu, memory)
		}
		if text(at(p, "RequiresCompatibilities", 0)) != "FARGATE" || at(p, "NetworkMode") != "awsvpc" ||
			at(p, "RuntimePlatform", "CpuArchitecture") != "ARM64" {
			t.Errorf("%s: %v", task, p)
		}
		if family := text(at(p, "Family")); family != name+"-"+strings.ToLower(task) {
			t.Errorf("%s: family %s", task, family)
		}
		if n := len(list(at(p, "ContainerDefinitions"))); n != 1 {
			t.Errorf("%s: %d containers", task, n)
		}
		c := container(d, task)
		limit, err := strconv.Atoi(strings.TrimSuffix(environmentOf(t, d, task, "GOMEMLIMIT"), "MiB"))
		if err != nil || limit < memory*85/100 || limit > memory*92/100 {
			t.Errorf("%s: GOMEMLIMIT of %d MiB in %d: %v", task, limit, memory, err)
		}
		stop := number(t, c["StopTimeout"])
		if stop < 30 || stop > 120 {
			t.Errorf("%s: it has %v s to stop", task, stop)
		}
		if c["User"] != "65532" || c["ReadonlyRootFilesystem"] != true ||
			at(c, "LinuxParameters", "Capabilities", "Drop", 0) != "ALL" {
			t.Errorf("%s: the container may do too much: %v", task, c)
		}
		program := map[string]string{"Edge": "edge", "Shop": "shop", "Worker": "worker"}[task]
		if program == "" {
			program = "ctl"
		}
		if !strings.HasPrefix(text(c["Image"]), "registry/"+program+"@sha256:") ||
			!strings.Contains(dockerfile, "FROM base AS "+program+"\n") {
			t.Errorf("%s: image %v", task, c["Image"])
		}
		if program != "ctl" {
			check := at(c, "HealthCheck", "Command")
			want := []any{"CMD", "/" + program, "-healthcheck"}
			if !slices.Equal(list(check), want) || !strings.Contains(dockerfile, `CMD ["/`+program+
				`", "-healthcheck"]`) {
				t.Errorf("%s: health check %v", task, check)
			}
			for key, bounds := range map[string][2]float64{"Interval": {5, 300}, "Timeout": {2, 60}, "Retries": {1, 10},
				"StartPeriod": {0, 300}} {
				if n := number(t, at(c, "HealthCheck", key)); n < bounds[0] || n > bounds[1] {
					t.Errorf("%s: health check %s %v", task, key, n)
				}
			}
		}
		// The ports are the defaults of EDGE_ADDR, SHOP_ADDR and ADMIN_ADDR.
		var open []string
		for _, port := range list(c["PortMappings"]) {
			open = append(open, text(at(port, "ContainerPort")))
		}
		if want := ports[task]; strings.Join(open, " ") != want {
			t.Errorf("%s: ports %v, want %s", task, open, want)
		}
		group := text(at(c, "LogConfiguration", "Options", "awslogs-group"))
		logs := at(d[stack][strings.ToUpper(program[:1])+program[1:]+"Logs"], "Properties")
		if group != "/"+name+"/"+program || at(logs, "LogGroupName") != group || at(logs, "RetentionInDays") == nil {
			t.Errorf("%s: logs go to %s, which is %v", task, group, logs)
		}
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// constant is the value of a duration in a Go file, such as 25 * time.Second.
func constant(t testing.TB, path, name string) time.Duration {
	t.Helper()
	m := regexp.MustCompile(`\b` + name + `\s+= (\d+) \* time\.Second`).FindStringSubmatch(read(t, path))
	if m == nil {
		t.Fatalf("%s has no %s", path, name)
	}
	n, _ := strconv.Atoi(m[1])
	return time.Duration(n) * time.Second
}

// TestStops: the times of a stop fit into one another, those of the programs included.
func TestStops(t *testing.T) {
	d := deploy(t, parameters("small"))
	balancer := attributes(at(d["services"]["LoadBalancer"], "Properties", "LoadBalancerAttributes"))
	if balancer["deletion_protection.enabled"] != "true" ||
		balancer["routing.http.drop_invalid_header_fields.enabled"] != "true" {
		t.Errorf("the load balancer has %v", balancer)
	}
	idle := seconds(t, balancer["idle_timeout.timeout_seconds"])
	longestWait := constant(t, "../edge/status.go", "maxStatusWait")

	stopsInTime(t, d, "Edge", idle, longestWait, constant(t, "../edge/server.go", "idleTimeout"),
		constant(t, "../edge/server.go", "readyTimeout"))
	stopsInTime(t, d, "Shop", idle, constant(t, "../shop/server.go", "workTimeout"),
		constant(t, "../shop/server.go", "idleTimeout"), constant(t, "../shop/server.go", "readyTimeout"))
	if idle <= longestWait {
		t.Errorf("the load balancer keeps idle connections for %s, and a buyer waits up to %s", idle, longestWait)
	}
	if worker, killed := constant(t, "../worker/main.go", "stopTimeout"),
		seconds(t, container(d, "Worker")["StopTimeout"]); worker+5*time.Second > killed {
		t.Errorf("the worker stops within %s and gives back, and is killed after %s", worker, killed)
	}
}

func seconds(t *testing.T, v any) time.Duration {
	t.Helper()
	return time.Duration(number(t, v) * float64(time.Second))
}

// attributes are those of a load balancer or of targets, by their keys.
func attributes(of any) map[string]string {
	m := map[string]string{}
	for _, a := range list(of) {
		m[text(at(a, "Key"))] = text(at(a, "Value"))
	}
	return m
}

// stopsInTime looks at a task behind the load balancer: how it is taken out and stopped, with the longest wait of a
// request, and how its health is asked for.
func stopsInTime(t *testing.T, d deployed, task string, idle, longestWait, kept, readyTimeout time.Duration) {
	t.Helper()
	targets := at(d["services"][task+"Targets"], "Properties")
	drain := seconds(t, attributes(at(targets, "TargetGroupAttributes"))["deregistration_delay.timeout_seconds"])
	stop := constant(t, "../"+strings.ToLower(task)+"/main.go", "stopTimeout")
	notice, err := time.ParseDuration(environmentOf(t, d, task, "SHUTDOWN_NOTICE"))
	if err != nil || notice < time.Second || notice > 10*time.Second {
		t.Errorf("%s: SHUTDOWN_NOTICE is %v: %v", task, notice, err)
	}
	if drain <= longestWait || drain > time.Minute {
		t.Errorf("%s: the load balancer waits for %s, and a request up to %s", task, drain, longestWait)
	}
	if killed := seconds(t, container(d, task)["StopTimeout"]); stop >= killed || notice >= stop {
		t.Errorf("%s stops within %s, gives notice for %s and is killed after %s", task, stop, notice, killed)
	}
	if idle >= kept {
		t.Errorf("the load balancer keeps idle connections for %s, and %s for %s", idle, task, kept)
	}

	interval, timeout := seconds(t, at(targets, "HealthCheckIntervalSeconds")),
		seconds(t, at(targets, "HealthCheckTimeoutSeconds"))
	if at(targets, "HealthCheckPath") != "/readyz" || timeout >= interval || timeout <= readyTimeout {
		t.Errorf("%s: the health check of the targets is %v", task, targets)
	}
	for key, bounds := range map[string][2]float64{"HealthyThresholdCount": {2, 10}, "UnhealthyThresholdCount": {2, 10},
		"HealthCheckIntervalSeconds": {5, 300}} {
		if n := number(t, at(targets, key)); n < bounds[0] || n > bounds[1] {
			t.Errorf("%s: %s is %v", task, key, n)
		}
	}
	if patience := interval * time.Duration(number(t, at(targets, "UnhealthyThresholdCount"))); patience < time.Minute {
		t.Errorf("%s: one without Redis is replaced after %s, before Redis has failed over", task, patience)
	}
}

func TestServices(t *testing.T) {
	sizes(t, func(t *testing.T, d deployed) {
		name := parameters("")["Name"]
		services := d["services"]
		for logical, alarms := range map[string][]any{
			"EdgeService":   {name + "-edge-errors", name + "-edge-unhealthy"},
			"ShopService":   {name + "-shop-errors", name + "-shop-unhealthy"},
			"WorkerService": {name + "-dead-letters"},
		} {
			service := at(services[logical], "Properties")
			c := at(service, "DeploymentConfiguration")
			if at(c, "DeploymentCircuitBreaker", "Enable") != true ||
				at(c, "DeploymentCircuitBreaker", "Rollback") != true ||
				at(c, "Alarms", "Enable") != true || at(c, "Alarms", "Rollback") != true ||
				!slices.Equal(list(at(c, "Alarms", "AlarmNames")), alarms) {
				t.Errorf("%s is not rolled back: %v", logical, c)
			}
			if number(t, at(c, "MinimumHealthyPercent")) < 100 || number(t, at(c, "MaximumPercent")) < 150 {
				t.Errorf("%s: a deployment takes tasks away: %v", logical, c)
			}
			if at(service, "DesiredCount") != nil {
				t.Errorf("%s: a deployment would undo the scaling", logical)
			}
			if at(service, "EnableExecuteCommand") != nil {
				t.Errorf("%s: anybody with the right to it gets a shell", logical)
			}
		}
		after := list(at(services["EdgeService"], "DependsOn"))
		if !slices.Contains(after, any("HttpsListener")) ||
			at(services[text(at(services["ShopService"], "DependsOn"))], "Properties", "Actions", 0,
				"TargetGroupArn") != "<ShopTargets>" {
			t.Error("ECS refuses a target group without a load balancer")
		}
		if !slices.Contains(after, any("ShopService")) {
			t.Error("edges that have no accounts may be there before the shop that has them")
		}

		// Listeners.
		https, http := at(services["HttpsListener"], "Properties"), at(services["HttpListener"], "Properties")
		if at(https, "Protocol") != "HTTPS" || text(at(https, "Port")) != "443" ||
			!strings.Contains(text(at(https, "SslPolicy")), "TLS13-1-2") ||
			at(https, "Certificates", 0, "CertificateArn") == nil {
			t.Errorf("HTTPS: %v", https)
		}
		if at(http, "DefaultActions", 0, "RedirectConfig", "Protocol") != "HTTPS" || text(at(http, "Port")) != "80" ||
			len(list(at(http, "DefaultActions"))) != 1 {
			t.Errorf("HTTP: %v", http)
		}

		// Scaling.
		connections := 0.0
		for logical, target := range ofType(services, "AWS::ApplicationAutoScaling::ScalableTarget") {
			least, most := number(t, target["MinCapacity"]), number(t, target["MaxCapacity"])
			service := strings.TrimSuffix(logical, "Scaling")
			if least < 2 || most <= least || target["ScalableDimension"] != "ecs:service:DesiredCount" ||
				target["ResourceId"] != "service/"+name+"/<"+service+"Service.Name>" {
				t.Errorf("%s: %v", logical, target)
			}
			connections += most
		}
		// While a deployment replaces them there are twice as many.
		threshold := number(t, at(d["data"]["DatabaseConnectionsAlarm"], "Properties", "Threshold"))
		m := regexp.MustCompile(`maxConns = (\d+)`).FindStringSubmatch(read(t, "../internal/mysql/db.go"))
		if each := number(t, m[1]); 2*connections*each > threshold {
			t.Errorf("%v tasks have up to %v connections each, and MySQL has %v for them", connections, each, threshold)
		}
		policies := ofType(services, "AWS::ApplicationAutoScaling::ScalingPolicy")
		predefined := func(policy string) any {
			return at(policies[policy], "TargetTrackingScalingPolicyConfiguration", "PredefinedMetricSpecification",
				"PredefinedMetricType")
		}
		if predefined("EdgeScalingByRequests") != "ALBRequestCountPerTarget" ||
			predefined("EdgeScalingByCpu") != "ECSServiceAverageCPUUtilization" ||
			predefined("ShopScalingByCpu") != "ECSServiceAverageCPUUtilization" || len(policies) != 4 {
			t.Errorf("scaling: %v", policies)
		}
		if label := at(policies["EdgeScalingByRequests"], "TargetTrackingScalingPolicyConfiguration",
			"PredefinedMetricSpecification",
			"ResourceLabel"); label != "<LoadBalancer.LoadBalancerFullName>/<EdgeTargets.TargetGroupFullName>" {
			t.Errorf("requests are counted of %v", label)
		}
		backlog := at(policies["WorkerScalingByBacklog"], "TargetTrackingScalingPolicyConfiguration",
			"CustomizedMetricSpecification", "Metrics")
		checkMetrics(t, "WorkerScalingByBacklog", list(backlog), true)
	})
	given := parameters("large")
	given["EdgeMinimum"], given["ReservedLcu"], given["TraceEndpoint"] = "50", "500", "http://collector:4318"
	all := deploy(t, given)
	d := all["services"]
	for _, task := range []string{"Edge", "Shop", "Worker"} {
		if got := environmentOf(t, all, task, "OTEL_EXPORTER_OTLP_ENDPOINT"); got != "http://collector:4318" {
			t.Errorf("%s: traces go to %q", task, got)
		}
	}
	if at(d["EdgeScaling"], "Properties", "MinCapacity") != "50" ||
		at(d["EdgeTasksAlarm"], "Properties", "Threshold") != "50" ||
		at(d["LoadBalancer"], "Properties", "MinimumLoadBalancerCapacity", "CapacityUnits") != "500" {
		t.Error("EdgeMinimum and ReservedLcu have no effect")
	}
}

// TestNames: load balancers and their targets are called what AWS takes.
func TestNames(t *testing.T) {
	services := deploy(t, parameters("small"))["services"]
	for property, most := range map[string]int{"LoadBalancer": 32, "EdgeTargets": 32, "ShopTargets": 32} {
		got := text(at(services[property], "Properties", "Name"))
		if len(got) > most || !regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?$`).MatchString(got) ||
			strings.HasPrefix(got, "internal-") {
			t.Errorf("%s is called %q", property, got)
		}
	}
}

// TestQueues: the queues are as the Go code makes them, encrypted, and open to TLS only.
func TestQueues(t *testing.T) {
	data := deploy(t, parameters("small"))["data"]
	name := parameters("small")["Name"]
	queues := ofType(data, "AWS::SQS::Queue")
	if len(queues) != 2 {
		t.Errorf("there are %d queues", len(queues))
	}
	for logical, want := range map[string]string{"Orders": name + "-" + localstack.QueueName, "DeadLetters": name +
		"-" + localstack.DLQName} {
		q := queues[logical]
		if q["QueueName"] != want || len(want) > 80 || q["SqsManagedSseEnabled"] != true || q["FifoQueue"] != nil {
			t.Errorf("%s: %v", logical, q)
		}
		if got := number(t, q["VisibilityTimeout"]); got != queue.VisibilityTimeout.Seconds() || got > 43_200 {
			t.Errorf("%s: a visibility timeout of %v s", logical, got)
		}
		if got := number(t, q["MessageRetentionPeriod"]); got != queue.MessageRetention.Seconds() ||
			got > 1_209_600 {
			t.Errorf("%s: a retention of %v s", logical, got)
		}
		denied := false
		for _, policy := range ofType(data, "AWS::SQS::QueuePolicy") {
			s := at(policy, "PolicyDocument", "Statement", 0)
			if at(policy, "Queues", 0) == "<"+logical+">" && at(s, "Effect") == "Deny" && at(s, "Principal") == "*" &&
				at(s, "Action") == "sqs:*" &&
				at(s, "Resource") == "<"+logical+".Arn>" &&
				at(s, "Condition", "Bool", "aws:SecureTransport") == "false" {
				denied = true
			}
		}
		if !denied {
			t.Errorf("%s can be used without TLS", logical)
		}
	}
	redrive := queues["Orders"]["RedrivePolicy"]
	if at(redrive, "deadLetterTargetArn") != "<DeadLetters.Arn>" ||
		number(t, at(redrive, "maxReceiveCount")) != queue.MaxReceiveCount {
		t.Errorf("the redrive policy is %v", redrive)
	}
	allow := queues["DeadLetters"]["RedriveAllowPolicy"]
	if at(allow, "redrivePermission") != "byQueue" || at(allow, "sourceQueueArns",
		0) != "arn:aws:sqs:ap-southeast-2:123456789012:"+name+"-orders" ||
		len(list(at(allow, "sourceQueueArns"))) != 1 {
		t.Errorf("dead letters come from %v", allow)
	}
}

func TestData(t *testing.T) {
	sizes(t, func(t *testing.T, d deployed) {
		data := d["data"]
		check := func(logical string, want object) {
			t.Helper()
			for key, value := range want {
				if got := at(data[logical], "Properties", key); text(got) != text(value) {
					t.Errorf("%s: %s is %v, want %v", logical, key, got, value)
				}
			}
			resource := data[logical]
			if at(resource, "DeletionPolicy") != "Snapshot" || at(resource, "UpdateReplacePolicy") != "Snapshot" {
				t.Errorf("%s is lost with its stack", logical)
			}
		}
		check("Database", object{
			"Engine": "mysql", "MultiAZ": true, "ManageMasterUserPassword": true, "StorageEncrypted": true,
			"DeletionProtection": true,
			"PubliclyAccessible": false, "CopyTagsToSnapshot": true, "AutoMinorVersionUpgrade": true,
		})
		database := at(data["Database"], "Properties")
		if n := number(t, at(database, "BackupRetentionPeriod")); n < 7 || n > 35 {
			t.Errorf("backups are kept for %v days", n)
		}
		if at(database, "MasterUserPassword") != nil || number(t, at(database, "AllocatedStorage")) < 400 {
			t.Errorf("the database is %v", database)
		}
		mysql := at(data["DatabaseParameters"], "Properties")
		if at(mysql, "Parameters", "require_secure_transport") != "1" ||
			at(mysql, "Parameters", "collation_server") != "utf8mb4_unicode_ci" ||
			!regexp.MustCompile(`^8\.4\.\d+$`).MatchString(text(at(database, "EngineVersion"))) ||
			at(mysql, "Family") != "mysql8.4" {
			t.Errorf("the parameters of MySQL are %v", mysql)
		}
		check("Redis", object{
			"Engine": "valkey", "MultiAZEnabled": true, "AutomaticFailoverEnabled": true,
			"TransitEncryptionEnabled": true,
			"AtRestEncryptionEnabled":  true, "ClusterMode": "enabled", "Port": 6379.0,
			"AuthToken": "{{resolve:secretsmanager:<RedisPassword>}}",
		})
		redis := at(data["Redis"], "Properties")
		parameters := at(data["RedisParameters"], "Properties")
		if at(parameters, "Properties", "maxmemory-policy") != "noeviction" ||
			at(parameters, "Properties", "cluster-enabled") != "yes" {
			t.Errorf("the parameters of Redis are %v", parameters)
		}
		if family, _, _ := strings.Cut(text(at(redis, "EngineVersion")), "."); at(parameters,
			"CacheParameterGroupFamily") != "valkey"+family {
			t.Errorf("the parameters of Redis are of %v", at(parameters, "CacheParameterGroupFamily"))
		}
		if number(t, at(redis, "ReplicasPerNodeGroup")) < 1 || number(t, at(redis, "SnapshotRetentionLimit")) < 1 ||
			at(data["Redis"], "UpdatePolicy", "UseOnlineResharding") != true {
			t.Errorf("Redis is %v", redis)
		}
		if id := text(at(redis, "ReplicationGroupId")); len(id) > 40 {
			t.Errorf("Redis is called %s", id)
		}
		for logical, secret := range ofType(data, "AWS::SecretsManager::Secret") {
			length := number(t, at(secret, "GenerateSecretString", "PasswordLength"))
			// 32 bytes for the key of tokens; 16 to 128 characters, and few signs, for AUTH of ElastiCache.
			if length < 32 || length > 128 || at(secret, "GenerateSecretString", "ExcludePunctuation") != true ||
				len(text(secret["Name"])) > 512 {
				t.Errorf("secret %s: %v", logical, secret)
			}
		}
	})
	// What sizes are, says the capacity model.
	model := read(t, "../docs/performance.md")
	for size, want := range map[string][]string{"small": {"db.r7g.xlarge", "1"}, "large": {"db.r7g.4xlarge", "3"}} {
		data := deploy(t, parameters(size))["data"]
		class, shards := text(at(data["Database"], "Properties", "DBInstanceClass")),
			text(at(data["Redis"], "Properties", "NumNodeGroups"))
		if class != want[0] || shards != want[1] || !strings.Contains(model, class) ||
			!strings.Contains(model, text(at(data["Redis"], "Properties", "CacheNodeType"))) {
			t.Errorf("%s: %s, %s shards", size, class, shards)
		}
	}
}

var metricID = regexp.MustCompile(`^[a-z][a-zA-Z0-9_]*$`)

// checkMetrics: ids are such as CloudWatch takes, expressions name ids that are there, and one of all is the result.
func checkMetrics(t *testing.T, where string, metrics []any, explicit bool) {
	t.Helper()
	ids := map[string]bool{}
	results := 0
	for _, m := range metrics {
		id := text(at(m, "Id"))
		if !metricID.MatchString(id) || ids[id] {
			t.Errorf("%s: metric id %q", where, id)
		}
		ids[id] = true
		returned := at(m, "ReturnData")
		if returned == true || returned == nil && !explicit {
			results++
		}
		if (at(m, "Expression") == nil) == (at(m, "MetricStat") == nil) {
			t.Errorf("%s: %s is no metric and no expression, or both", where, id)
		}
	}
	if results != 1 {
		t.Errorf("%s: %d results", where, results)
	}
	if len(metrics) > 10 {
		t.Errorf("%s: %d metrics", where, len(metrics))
	}
	used := map[string]bool{}
	for _, m := range metrics {
		expression, ok := at(m, "Expression").(string)
		if !ok {
			continue
		}
		for _, word := range regexp.MustCompile(`[A-Za-z][A-Za-z0-9_]*`).FindAllString(expression, -1) {
			switch {
			case ids[word]:
				used[word] = true
			case word == "METRICS":
				for id := range ids {
					used[id] = true
				}
			case !slices.Contains([]string{"FILL", "IF", "MAX"}, word):
				t.Errorf("%s: %s in %q is no metric", where, word, expression)
			}
		}
		if strings.Count(expression, "(") != strings.Count(expression, ")") {
			t.Errorf("%s: %q", where, expression)
		}
		used[text(at(m, "Id"))] = true
	}
	for id := range ids {
		if !used[id] {
			t.Errorf("%s: nothing uses %s", where, id)
		}
	}
}

func TestAlarms(t *testing.T) {
	sizes(t, func(t *testing.T, d deployed) {
		names := map[string]bool{}
		metrics := map[string]bool{}
		for _, stack := range stacks {
			for logical, alarm := range ofType(d[stack], "AWS::CloudWatch::Alarm") {
				name := text(alarm["AlarmName"])
				if !strings.HasPrefix(name, parameters("")["Name"]+"-") || len(name) > 255 || names[name] {
					t.Errorf("%s is called %s", logical, name)
				}
				names[name] = true
				if at(alarm["AlarmActions"], 0) != "<Alarms>" || at(alarm["OKActions"], 0) != "<Alarms>" ||
					len(text(alarm["AlarmDescription"])) < 20 {
					t.Errorf("%s tells nobody, or nothing", logical)
				}
				if !slices.Contains([]string{"missing", "breaching", "notBreaching"}, text(alarm["TreatMissingData"])) {
					t.Errorf("%s: missing data are %v", logical, alarm["TreatMissingData"])
				}
				number(t, alarm["Threshold"])
				period := 60.0
				if m := list(alarm["Metrics"]); len(m) > 0 {
					checkMetrics(t, logical, m, false)
					for _, q := range m {
						metrics[text(at(q, "MetricStat", "Metric", "MetricName"))] = true
					}
				} else {
					period = number(t, alarm["Period"])
					metrics[text(alarm["MetricName"])] = true
					if alarm["Namespace"] == nil || len(list(alarm["Dimensions"])) == 0 ||
						(alarm["Statistic"] == nil) == (alarm["ExtendedStatistic"] == nil) {
						t.Errorf("%s: %v", logical, alarm)
					}
				}
				if n := number(t, alarm["EvaluationPeriods"]); n*period > 86_400 || period != 60 &&
					int(period)%60 != 0 {
					t.Errorf("%s looks at %v periods of %v s", logical, n, period)
				}
			}
		}
		for _, want := range []string{
			"ApproximateAgeOfOldestMessage", "ApproximateNumberOfMessagesVisible", "HTTPCode_Target_5XX_Count",
			"HTTPCode_ELB_5XX_Count", "TargetResponseTime",
			"UnHealthyHostCount", "CPUUtilization", "FreeStorageSpace", "DatabaseConnections",
			"DatabaseMemoryUsagePercentage", "Evictions",
			"EngineCPUUtilization", "RunningTaskCount",
		} {
			if !metrics[want] {
				t.Errorf("no alarm is about %s", want)
			}
		}
		// Each node of Redis is looked at.
		shards := number(t, at(d["data"]["Redis"], "Properties", "NumNodeGroups"))
		nodes := shards * (1 + number(t, at(d["data"]["Redis"], "Properties", "ReplicasPerNodeGroup")))
		for _, logical := range []string{"RedisMemoryAlarm", "RedisEvictionsAlarm", "RedisCpuAlarm"} {
			seen := map[string]bool{}
			for _, q := range list(at(d["data"][logical], "Properties", "Metrics"))[1:] {
				m := at(q, "MetricStat", "Metric")
				seen[text(at(m, "Dimensions", 0, "Value"))] = true
				if first := at(d["data"][logical], "Properties", "Metrics", 1, "MetricStat", "Metric",
					"MetricName"); at(m, "MetricName") != first {
					t.Errorf("%s is about %v and %v", logical, first, at(m, "MetricName"))
				}
			}
			for shard := range int(shards) {
				for node := range int(nodes / shards) {
					if name := fmt.Sprintf("%s-%04d-%03d", parameters("")["Name"], shard+1, node+1); !seen[name] {
						t.Errorf("%s does not look at %s", logical, name)
					}
				}
			}
			if float64(len(seen)) != nodes {
				t.Errorf("%s looks at %d nodes of %v", logical, len(seen), nodes)
			}
		}
		// Nobody is told unless an address is given.
		if len(ofType(d["data"], "AWS::SNS::Subscription")) != 0 {
			t.Error("somebody is told of alarms")
		}
	})
	given := parameters("small")
	given["AlarmEmail"] = "a@b"
	if at(deploy(t, given)["data"]["AlarmsToEmail"], "Properties", "Endpoint") != "a@b" {
		t.Error("the address is not told of alarms")
	}
}

func TestDashboard(t *testing.T) {
	d := deploy(t, parameters("small"))
	var dashboard struct {
		Widgets []struct {
			Type                string
			X, Y, Width, Height int
			Properties          struct {
				Title, Region string
				Metrics       [][]any
			}
		}
	}
	body := text(at(d["services"]["Dashboard"], "Properties", "DashboardBody"))
	if err := json.Unmarshal([]byte(body), &dashboard); err != nil {
		t.Fatalf("%v in:\n%s", err, body)
	}
	if len(dashboard.Widgets) < 10 || len(dashboard.Widgets) > 500 {
		t.Errorf("there are %d widgets", len(dashboard.Widgets))
	}
	places := map[[2]int]bool{}
	for _, w := range dashboard.Widgets {
		place := [2]int{w.X, w.Y}
		if w.X+w.Width > 24 || places[place] || w.Type != "metric" || w.Properties.Title == "" ||
			w.Properties.Region != "ap-southeast-2" || len(w.Properties.Metrics) == 0 {
			t.Errorf("widget %+v", w)
		}
		places[place] = true
		for _, m := range w.Properties.Metrics {
			first, _ := m[0].(string)
			expression, _ := m[0].(map[string]any)
			if !strings.Contains(first, "/") && !strings.HasPrefix(text(expression["expression"]),
				`SEARCH('{AWS/ElastiCache,CacheClusterId} MetricName="`) {
				t.Errorf("widget %s: metric %v", w.Properties.Title, m)
			}
		}
	}
}

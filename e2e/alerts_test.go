package e2e

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"stampede/infra"
	"stampede/localstack"
	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
)

// stagePayments set up a provider of payments, which is asked nothing as long as nobody pays: by ECPay's public keys.
var stagePayments = []string{
	"FRONT=http://127.0.0.1:1", "PAYMENT_TEST_MODE=true", "ECPAY_MERCHANT_ID=3002607",
	"ECPAY_HASH_KEY=pwFHCqoQZGmho4w6", "ECPAY_HASH_IV=EkRm7iFT261dpevs",
	"ECPAY_HOST=https://payment-stage.ecpay.com.tw",
}

// TestMonitoring has a real Prometheus with the shipped rules watch a real system. The worker is killed: the alerts
// about it fire, and are over when a worker runs again. Likewise for a queue that refuses, and for a dead letter, which
// is dealt with by the commands in the runbook. And every query of every dashboard and rule finds what it is about.
func TestMonitoring(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.env = append(s.env, stagePayments...)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "500")
	s.mustCtl("product", "add", "--name", "split ticket", "--price", "100", "--stock", "8", "--buckets", "2")
	p := startPrometheus(t)
	edge, shop, worker := s.startEdge(), s.startShop(), s.startWorker()
	p.scrape("edge", edge)
	p.scrape("shop", shop)
	p.scrape("worker", worker)
	stacktest.Eventually(t, 30*time.Second, func() error {
		return errors.Join(p.hasData(`up{job="edge"} == 1`), p.hasData(`up{job="shop"} == 1`),
			p.hasData(`up{job="worker"} == 1`))
	})
	p.fires(nil, "NoEdge", "NoShop", "NoWorker", "InstanceDown", "OrdersNotDecided")

	if err := worker.Kill(); err != nil {
		t.Fatal(err)
	}
	c := newCrowd()
	s.rush(t.Context(), c, 1, 50, 200)
	if len(c.orders) != 50 {
		t.Fatalf("without a worker %d of 50 orders are accepted: %v %v", len(c.orders), c.refused, c.errors)
	}
	p.fires([]string{"NoWorker", "InstanceDown", "OrdersNotDecided"}, "NoEdge")
	worker = s.startWorker()
	p.scrape("worker", worker)
	p.fires(nil, "NoWorker", "InstanceDown", "OrdersNotDecided")

	s.stack.SQS.SetFaults(sqs.Faults{Actions: []string{"SendMessageBatch"}, Refuse: 1, RefuseWith: "OverLimit"})
	s.rush(t.Context(), c, 51, 80, 200)
	if c.refused["queue_unavailable"] != 30 {
		t.Errorf("with a queue that refuses: %v %v", c.refused, c.errors)
	}
	p.fires([]string{"OrderErrors"})
	s.stack.SQS.SetFaults(sqs.Faults{})

	letter := s.sendGarbage()
	p.fires([]string{"DeadLetters"})

	// Half of the units of a product in buckets are in each, so somebody has to borrow.
	for user := range 8 {
		if status, body := request(t, "POST", s.url+"/api/orders", s.token(1000+user),
			`{"product_id":2,"quantity":1}`); status != 202 {
			t.Errorf("order %d of a product in buckets: %d %v", user, status, body)
		}
	}
	user := s.useShop()
	s.rush(t.Context(), c, 101, 400, 200)
	p.checkQueries() // at once, since rules look at the last minute
	s.mustBeClean(c, 30*time.Second, len(c.orders))
	order := slices.Sorted(maps.Keys(c.orders))[0]
	s.runRunbook("MESSAGE="+letter, "PRODUCT=1", "ORDER="+order, "USER_ID="+fmt.Sprint(user["user_id"]))
	p.fires(nil, "DeadLetters")
}

// useShop has a shop answer, refuse, and fail while a table is away. It returns the account that was made.
func (s *system) useShop() (user map[string]any) {
	s.t.Helper()
	const account = `{"email":"ada@example.org","password":"many copper kettles sing","name":"Ada"}`
	db := openDB(s.t, s.stack.MariaDB.DSN("stampede"))
	mustExec(s.t, db, "RENAME TABLE users TO elsewhere")
	if status, body := request(s.t, "POST", s.front+"/api/register", "", account); status < 500 {
		s.t.Errorf("register without a table: %d %v", status, body)
	}
	mustExec(s.t, db, "RENAME TABLE elsewhere TO users")

	status, user := request(s.t, "POST", s.front+"/api/register", "", account)
	if status != 201 {
		s.t.Fatalf("register: %d %v", status, user)
	}
	if status, body := request(s.t, "POST", s.front+"/api/register", "", account); status != 409 {
		s.t.Errorf("register again: %d %v", status, body)
	}
	return user
}

// sendGarbage puts a message that is no order on the queue, and returns the id of the dead letter that it becomes.
func (s *system) sendGarbage() (id string) {
	s.t.Helper()
	queue := localstack.SQSClient(s.stack.SQS.URL())
	url, err := queue.GetQueueUrl(s.t.Context(), &awssqs.GetQueueUrlInput{QueueName: aws.String(localstack.QueueName)})
	if err == nil {
		_, err = queue.SendMessage(s.t.Context(), &awssqs.SendMessageInput{QueueUrl: url.QueueUrl,
			MessageBody: aws.String("garbage")})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^([0-9a-f-]{36}) .* cannot be decoded`)
	stacktest.Eventually(s.t, 30*time.Second, func() error {
		list := s.mustCtl("dlq", "list")
		line := found.FindStringSubmatch(list)
		if line == nil {
			return fmt.Errorf("dlq list: %s", list)
		}
		id = line[1]
		return nil
	})
	return id
}

// checkQueries evaluates everything that the dashboards and the rules ask for. Each query of a dashboard and each
// recorded value has data; an alert has none if all is well, but the series that it looks at are there.
func (p *prometheus) checkQueries() {
	p.t.Helper()
	needed, looked := map[string]string{}, map[string]string{} // place → expression
	dashboards, err := infra.Dashboards()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, d := range dashboards {
		for place, expr := range d.Queries("5m") {
			needed[place], looked[place] = expr, expr
		}
	}
	rules, err := infra.Rules()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, r := range rules {
		place := "rule " + r.Record + r.Alert
		looked[place] = r.Expr
		if r.Record != "" {
			needed[place] = r.Expr
		}
	}
	for place, expr := range looked {
		for _, selector := range selectors(expr) {
			needed[place+": "+selector] = selector
		}
	}
	if len(needed) < 100 {
		p.t.Errorf("there are only %d queries", len(needed))
	}
	// Some are sampled, and some are recorded by rules that come before in time: they get a moment.
	stacktest.Eventually(p.t, 20*time.Second, func() error {
		var missing []string
		for place, expr := range needed {
			if err := p.hasData(expr); err != nil {
				missing = append(missing, fmt.Sprintf("%s: %v", place, err))
			} else {
				delete(needed, place)
			}
		}
		if len(missing) > 0 {
			slices.Sort(missing)
			return fmt.Errorf("queries without data:\n%s", strings.Join(missing, "\n"))
		}
		return nil
	})
	for place, expr := range looked {
		if _, err := p.query(expr); err != nil {
			p.t.Errorf("%s: %v", place, err)
		}
	}
}

var (
	windows  = regexp.MustCompile(`\[[^\]]*\]`)
	labels   = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[^}]*\})?\s*(\(?)`)
)

// selectors are the parts of an expression that say which series it is about.
func selectors(expr string) (found []string) {
	expr = windows.ReplaceAllString(labels.ReplaceAllString(expr, ""), "")
	for _, part := range selector.FindAllStringSubmatch(expr, -1) {
		name, call := part[1], part[3] == "("
		if !call && !slices.Contains([]string{"and", "or", "unless", "bool"}, name) {
			found = append(found, name+part[2])
		}
	}
	return found
}

// aboutPayment are commands of the runbook about a payment that nobody has made here. The tests of ctl run them.
var aboutPayment = regexp.MustCompile(` (NUMBER|ORDER)\b`)

// runRunbook runs every ctl command that stands in the runbook, but for those about a payment, once, in the order in
// which they stand there.
func (s *system) runRunbook(variables ...string) {
	s.t.Helper()
	runbook, err := os.ReadFile("../docs/runbook.md")
	if err != nil {
		s.t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^ctl .*$`).FindAllString(string(runbook), -1)
	if len(commands) < 10 {
		s.t.Errorf("the runbook has only %d commands", len(commands))
	}
	known := make(map[string]bool)
	for _, command := range commands {
		if known[command] || aboutPayment.MatchString(command) {
			continue
		}
		known[command] = true
		cmd := exec.CommandContext(s.t.Context(), "sh", "-c", command)
		cmd.Dir = s.dir
		cmd.Env = append(append(s.env[:len(s.env):len(s.env)], "PATH="+bin+":"+os.Getenv("PATH")), variables...)
		if out, err := cmd.CombinedOutput(); err != nil {
			s.t.Errorf("%s: %v\n%s", command, err, out)
		} else {
			s.t.Logf("%s\n%s", command, out)
		}
	}
}

package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/localstack/stacktest"
)

var metricType = regexp.MustCompile(`(?m)^# TYPE (stampede_\S+) (\S+)$`)

// exposedBy is the type of each metric and who has it, such as "gauge edge, worker" or "counter all", by its name. What
// the programs expose must please promtool.
func exposedBy(t *testing.T, processes map[string]*program) map[string]string {
	t.Helper()
	exposed := map[string]string{} // type and programs, by name
	for _, program := range slices.Sorted(maps.Keys(processes)) {
		text, err := scrape(processes[program])
		if err != nil {
			t.Fatal(err)
		}
		lint := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
		lint.Stdin = strings.NewReader(text)
		if out, err := lint.CombinedOutput(); err != nil {
			t.Errorf("%s: promtool check metrics: %v\n%s", program, err, out)
		}
		for _, m := range metricType.FindAllStringSubmatch(text, -1) {
			of := m[2] + " " + program
			if others, ok := exposed[m[1]]; ok {
				of = others + ", " + program
			}
			exposed[m[1]] = strings.Replace(of, "edge, shop, worker", "all", 1)
		}
	}
	return exposed
}

// someProvider sets up a provider of payments, so that what is counted of it is there. Nobody asks it.
var someProvider = []string{
	"FRONT=http://127.0.0.1", "PAYMENT_TEST_MODE=true", "STRIPE_HOST=http://127.0.0.1:1",
	"STRIPE_SECRET_KEY=rk_test_x", "STRIPE_WEBHOOK_SECRET=whsec_x",
}

// What the programs expose keeps to Prometheus's conventions, is what the documentation says, and does not grow with
// what clients ask for.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := newSystem(t).with(someProvider...)
	edge, shop, worker := s.startEdge(), s.startShop(), s.startWorker()
	s.mustCtl("product", "add", "--name", "p", "--price", "1", "--currency", "EUR", "--stock", "1")
	status, order := request(t, "POST", s.url+"/api/orders", s.token(1), `{"product_id":1,"quantity":1}`)
	if status != http.StatusAccepted {
		t.Fatalf("%d %v", status, order)
	}
	status, order = request(t, "GET", s.url+"/api/orders/"+order["order_id"].(string)+"?wait=20s", s.token(1), "")
	if order["status"] != "completed" {
		t.Fatalf("%d %v", status, order)
	}

	if status, _ := request(t, "GET", s.front+"/api/me", "", ""); status != http.StatusUnauthorized {
		t.Fatalf("nobody is %d", status)
	}

	exposed := exposedBy(t, map[string]*program{"edge": edge, "shop": shop, "worker": worker})
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(stampede_\\S+)` \\| (\\S+) \\|[^|]*\\| ([^|]+) \\|").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = m[2] + " " + m[3]
	}
	for _, name := range slices.Sorted(maps.Keys(exposed)) {
		if documented[name] != exposed[name] {
			t.Errorf("%s is a %s; docs/metrics.md says %q", name, exposed[name], documented[name])
		}
		delete(documented, name)
	}
	if len(documented) > 0 {
		t.Errorf("docs/metrics.md has what there is not: %v", documented)
	}

	series := func() int {
		text, err := scrape(edge)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(text, "\nstampede_http_requests_total{")
	}
	odd := func(round int) {
		for i := range 20 {
			for _, path := range []string{"/%d", "/api/orders/%d", "/api/products/%d", "/api/products?cursor=%d"} {
				if resp, err := http.Get(s.url + fmt.Sprintf(path, 1000*round+i)); err == nil {
					resp.Body.Close()
				}
			}
			req, err := http.NewRequest(fmt.Sprintf("ODD%d", 1000*round+i), s.url+"/api/orders", nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
		}
	}
	odd(1)
	before := series()
	odd(2)
	if after := series(); after != before {
		t.Errorf("clients have made %d series of %d", after, before)
	}
	// The queue's length is there without a worker, which is when it matters.
	if err := worker.Kill(); err != nil {
		t.Fatal(err)
	}
	stacktest.Eventually(t, 20*time.Second, func() error {
		text, err := scrape(edge)
		if err == nil && !strings.Contains(text, `stampede_queue_messages{queue="orders",state="visible"} 0`) {
			err = fmt.Errorf("the edge does not tell the queue's length")
		}
		return err
	})
}

package e2e

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"stampede/localstack/stacktest"
)

// spans takes traces in as a collector does, by OTLP over HTTP.
type spans struct {
	mu  sync.Mutex
	all []span
}

type span struct {
	*tracev1.Span
	service string
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &request)
	}
	if err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, of := range request.GetResourceSpans() {
		service := ""
		for _, a := range of.GetResource().GetAttributes() {
			if a.GetKey() == "service.name" {
				service = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range of.GetScopeSpans() {
			for _, one := range scope.GetSpans() {
				s.all = append(s.all, span{one, service})
			}
		}
	}
}

func (s span) attribute(key string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == key {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// trace returns the spans of the trace that an order is in, by name.
func (s *spans) trace(orderID string) map[string]span {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := ""
	for _, one := range s.all {
		if one.GetName() == "reserve" && one.attribute("stampede.order_id") == orderID {
			id = string(one.GetTraceId())
		}
	}
	found := map[string]span{}
	for _, one := range s.all {
		if id != "" && string(one.GetTraceId()) == id {
			found[one.GetName()] = one
		}
	}
	return found
}

// An order can be followed from the request through the queue to the commit, and the log lines of what goes wrong with
// it name its trace. What a client says of a trace of its own switches nothing on.
func TestTrace(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	received := &spans{}
	server := httptest.NewServer(received)
	t.Cleanup(server.Close)
	s.env = append(s.env, "OTEL_EXPORTER_OTLP_ENDPOINT="+server.URL, "OTEL_TRACES_SAMPLER=parentbased_always_on",
		"OTEL_BSP_SCHEDULE_DELAY=100")
	s.startEdge()
	worker := s.startWorker()
	s.mustCtl("product", "add", "--name", "p", "--price", "1", "--currency", "EUR", "--stock", "10")
	const theirs = "4bf92f3577b34da6a3ce929d0e0e4736"
	status, order := request(t, "POST", s.url+"/api/orders", s.token(1), `{"product_id":1,"quantity":1}`,
		"traceparent", "00-"+theirs+"-00f067aa0ba902b7-01")
	if status != http.StatusAccepted {
		t.Fatalf("%d %v", status, order)
	}
	want := []string{"POST /api/orders", "decide", "reserve", "send", "settle", "wait"}
	var trace map[string]span
	stacktest.Eventually(t, 30*time.Second, func() error {
		trace = received.trace(order["order_id"].(string))
		if got := slices.Sorted(maps.Keys(trace)); !slices.Equal(got, want) {
			return fmt.Errorf("the trace has %q", got)
		}
		return nil
	})
	if id := hex.EncodeToString(trace["decide"].GetTraceId()); id == theirs {
		t.Error("a client's own trace is taken over")
	}
	for child, parent := range map[string]string{
		"wait": "POST /api/orders", "reserve": "POST /api/orders", "send": "POST /api/orders", "decide": "send",
		"settle": "send",
	} {
		if got, want := trace[child].GetParentSpanId(), trace[parent].GetSpanId(); string(got) != string(want) {
			t.Errorf("%s is not part of %s", child, parent)
		}
	}
	for name, service := range map[string]string{"send": "stampede-edge", "decide": "stampede-worker"} {
		if got := trace[name].service; got != service {
			t.Errorf("%s is of %s", name, got)
		}
	}
	if got := trace["decide"].attribute("stampede.status"); got != "completed" {
		t.Errorf("it is decided as %q", got)
	}
	if trace["decide"].GetStartTimeUnixNano() < trace["send"].GetStartTimeUnixNano() {
		t.Error("it is decided before it is sent")
	}

	// An order that cannot be decided: its lines can be found by its trace.
	db, err := sql.Open("mysql", s.stack.MariaDB.DSN("stampede"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("ALTER TABLE orders ADD CONSTRAINT broken CHECK (quantity <> 3)"); err != nil {
		t.Fatal(err)
	}
	status, order = request(t, "POST", s.url+"/api/orders", s.token(1), `{"product_id":1,"quantity":3}`)
	if status != http.StatusAccepted {
		t.Fatalf("%d %v", status, order)
	}
	stacktest.Eventually(t, 30*time.Second, func() error {
		trace = received.trace(order["order_id"].(string))
		if trace["decide"].Span == nil {
			return fmt.Errorf("it has not been tried: %v", slices.Sorted(maps.Keys(trace)))
		}
		for line := range strings.Lines(worker.LogTail()) {
			if strings.Contains(line, `"trace_id":"`+hex.EncodeToString(trace["decide"].GetTraceId())+`"`) &&
				strings.Contains(line, order["order_id"].(string)) {
				return nil
			}
		}
		return fmt.Errorf("no line of the worker's log has the order and its trace")
	})
	if trace["decide"].GetStatus().GetCode() != tracev1.Status_STATUS_CODE_ERROR {
		t.Errorf("a failure is not marked: %v", trace["decide"].GetStatus())
	}
}

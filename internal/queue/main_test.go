package queue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/internal/queue"
	"stampede/localstack"
	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
)

// Each test has an SQS server of its own, so none is asked for here.
func TestMain(m *testing.M) { stacktest.Main(m, 0) }

// environment guards the process's environment, from which Open reads where SQS is.
var environment sync.Mutex

const ordersName, dlqName = "orders", "orders-dlq"

// openAt opens the queues of the server at an endpoint.
func openAt(t testing.TB, endpoint string) *queue.Queue {
	t.Helper()
	environment.Lock()
	defer environment.Unlock()
	for _, variable := range localstack.SQSEnv(endpoint) {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			t.Fatal(err)
		}
	}
	q, err := queue.Open(t.Context(), ordersName, dlqName)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// newServer starts an SQS server with the queues that the programs expect.
func newServer(t testing.TB) *sqs.Server {
	t.Helper()
	server := stacktest.NewSQS(t, sqs.Options{})
	if err := queue.Create(t.Context(), localstack.SQSClient(server.URL()), ordersName,
		dlqName); err != nil {
		t.Fatal(err)
	}
	return server
}

func newQueue(t testing.TB) (*queue.Queue, *sqs.Server) {
	t.Helper()
	server := newServer(t)
	return openAt(t, server.URL()), server
}

// front stands between a Queue and its server, sees what is sent, and answers some of it itself.
type front struct {
	server *httptest.Server

	mu    sync.Mutex
	steps []step
	sent  [][]string // the bodies of the messages of each SendMessageBatch
}

// step answers a request in place of the server; pass asks the server and returns its answer.
type step func(w http.ResponseWriter, r *http.Request, pass func() *httptest.ResponseRecorder)

// newFront makes the next requests to send meet these steps, one each, and those after them none.
func newFront(t testing.TB, steps ...step) (*queue.Queue, *front) {
	t.Helper()
	upstream := newServer(t).URL()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	f := &front{steps: steps}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		pass := func() *httptest.ResponseRecorder {
			recorder := httptest.NewRecorder()
			request, err := http.NewRequest(r.Method, upstream+r.URL.Path, bytes.NewReader(body))
			if err != nil {
				t.Error(err)
				return recorder
			}
			request.Header = r.Header.Clone()
			response, err := client.Do(request)
			if err != nil {
				t.Error(err)
				return recorder
			}
			defer response.Body.Close()
			for name := range response.Header {
				recorder.Header().Set(name, response.Header.Get(name))
			}
			recorder.WriteHeader(response.StatusCode)
			_, _ = io.Copy(recorder.Body, response.Body)
			return recorder
		}
		f.next(t, r, body)(w, r, pass)
	}))
	t.Cleanup(f.server.Close)
	return openAt(t, f.server.URL), f
}

// next is the step for a request.
func (f *front) next(t testing.TB, r *http.Request, body []byte) step {
	if r.Header.Get("X-Amz-Target") != "AmazonSQS.SendMessageBatch" {
		return passOn
	}
	var request struct {
		Entries []struct{ MessageBody string }
	}
	if err := json.Unmarshal(body, &request); err != nil {
		t.Error(err)
	}
	bodies := make([]string, len(request.Entries))
	for i, entry := range request.Entries {
		bodies[i] = entry.MessageBody
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = append(f.sent, bodies)
	if len(f.steps) == 0 {
		return passOn
	}
	s := f.steps[0]
	f.steps = f.steps[1:]
	return s
}

// requests lists the bodies of the messages of each request to send so far.
func (f *front) requests() [][]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent
}

func passOn(w http.ResponseWriter, _ *http.Request, pass func() *httptest.ResponseRecorder) {
	write(w, pass())
}

func write(w http.ResponseWriter, answer *httptest.ResponseRecorder) {
	for name := range answer.Header() {
		w.Header().Set(name, answer.Header().Get(name))
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

// status answers with an error and does nothing.
func status(code int) step {
	return func(w http.ResponseWriter, _ *http.Request, _ func() *httptest.ResponseRecorder) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, `{"__type":"com.amazon.coral.service#Fault","message":"made up"}`)
	}
}

// hang never answers.
func hang(_ http.ResponseWriter, r *http.Request, _ func() *httptest.ResponseRecorder) {
	<-r.Context().Done()
}

// reset lets the request have its effect and drops the connection.
func reset(_ http.ResponseWriter, _ *http.Request, pass func() *httptest.ResponseRecorder) {
	pass()
	panic(http.ErrAbortHandler)
}

// failEntries says of the entries that match that they failed.
func failEntries(match func(id string) bool) step {
	return func(w http.ResponseWriter, _ *http.Request, pass func() *httptest.ResponseRecorder) {
		answer := pass()
		var out struct {
			Successful []map[string]any
			Failed     []map[string]any
		}
		_ = json.Unmarshal(answer.Body.Bytes(), &out)
		kept := out.Successful[:0]
		for _, entry := range out.Successful {
			if match(entry["Id"].(string)) {
				out.Failed = append(out.Failed, map[string]any{"Id": entry["Id"], "Code": "InternalError",
					"SenderFault": false})
			} else {
				kept = append(kept, entry)
			}
		}
		out.Successful = kept
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_ = json.NewEncoder(w).Encode(out)
	}
}

// messagesOf makes messages with these bodies.
func messagesOf(bodies ...string) []queue.Outgoing {
	messages := make([]queue.Outgoing, len(bodies))
	for i, body := range bodies {
		messages[i].Body = body
	}
	return messages
}

// send sends messages within a time and returns their results. It fails the test if one has no result
// or more than one.
func send(t testing.TB, q *queue.Queue, timeout time.Duration, messages ...queue.Outgoing) []queue.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	results := make([]queue.Result, len(messages))
	calls := make([]int, len(messages))
	q.Send(ctx, messages, func(i int, r queue.Result) {
		results[i] = r
		calls[i]++
	})
	for i, n := range calls {
		if n != 1 {
			t.Errorf("done was called %d times for message %d", n, i)
		}
		if (results[i].Outcome == queue.Sent) != (results[i].Err == nil) {
			t.Errorf("message %d has outcome %v and error %v", i, results[i].Outcome, results[i].Err)
		}
	}
	return results
}

// mustBe fails the test unless all results have an outcome.
func mustBe(t testing.TB, want queue.Outcome, results ...queue.Result) {
	t.Helper()
	for i, r := range results {
		if r.Outcome != want {
			t.Errorf("message %d: outcome %v (%v), want %v", i, r.Outcome, r.Err, want)
		}
	}
}

// drain receives and deletes until nothing is visible, and returns what it received.
func drain(t testing.TB, q *queue.Queue) []queue.Message {
	t.Helper()
	var all []queue.Message
	for {
		depth, err := q.Depth(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if depth.Visible == 0 {
			return all
		}
		messages, err := q.Receive(t.Context(), queue.LongPoll, queue.VisibilityTimeout)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Delete(t.Context(), receiptsOf(messages)); err != nil {
			t.Fatal(err)
		}
		all = append(all, messages...)
	}
}

func receiptsOf(messages []queue.Message) []string {
	receipts := make([]string, len(messages))
	for i, m := range messages {
		receipts[i] = m.Receipt
	}
	return receipts
}

// bodiesOf counts messages by body.
func bodiesOf(messages []queue.Message) map[string]int {
	bodies := make(map[string]int)
	for _, m := range messages {
		bodies[m.Body]++
	}
	return bodies
}

func mustDepth(t testing.TB, q *queue.Queue, want queue.Depth) {
	t.Helper()
	got, err := q.Depth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("depth is %+v, want %+v", got, want)
	}
}

// deadLetters reads the dead-letter queue and leaves it empty.
func deadLetters(t testing.TB, q *queue.Queue) []queue.Message {
	t.Helper()
	return drain(t, q.DeadLetters())
}

func mustOne(t testing.TB, messages []queue.Message) queue.Message {
	t.Helper()
	if len(messages) != 1 {
		t.Fatalf("%d messages, want 1", len(messages))
	}
	return messages[0]
}

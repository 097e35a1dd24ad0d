package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"stampede/localstack"
	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
)

// TestDemo runs the demo as "make demo" does, as a newcomer's first command.
func TestDemo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "ctl"), "demo", "--json", "--dir", dir)
	cmd.Dir = ".." // it builds the programs from their sources
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, stderr.String(), stdout.String())
	}
	var r struct {
		Buyers, Accepted, Errors, Completed, Failed, Pending, Oversold, Lost, Leaked int

		SoldOut      int                `json:"sold_out"`
		UnitsSold    int                `json:"units_sold"`
		DecidedTwice int                `json:"decided_twice"`
		DurationS    float64            `json:"duration_s"`
		OrdersPerS   float64            `json:"orders_per_s"`
		LatencyMS    map[string]float64 `json:"latency_ms"`
		AcceptedMS   map[string]float64 `json:"accepted_latency_ms"`
		RefusedMS    map[string]float64 `json:"refused_latency_ms"`
		Audit        any
	}
	dec := json.NewDecoder(&stdout)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if r.Buyers != 2000 || r.Accepted != 500 || r.SoldOut != 1500 || r.Completed != 500 || r.UnitsSold != 500 {
		t.Errorf("not every unit was sold: %+v", r)
	}
	if r.Errors+r.Failed+r.Pending+r.Oversold+r.Lost+r.Leaked+r.DecidedTwice != 0 || r.Audit != "ok" {
		t.Errorf("something went wrong: %+v", r)
	}
	if !strings.Contains(stderr.String(), "\nwatch it live: http://127.0.0.1:") {
		t.Errorf("it does not say where the board is: %s", stderr.String())
	}
	if r.DurationS <= 0 || r.OrdersPerS <= 0 || len(r.LatencyMS) != 3 || r.AcceptedMS["p50"] <= 0 ||
		r.RefusedMS["p50"] <= 0 {
		t.Errorf("something was not measured: %+v", r)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "bin" {
		t.Errorf("the demo left %v", left)
	}
}

// TestUp follows what "make up" prints and writes: the curl line works when pasted, the file's variables lead ctl to
// the stack, and Ctrl-C stops everything.
func TestUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(t.TempDir(), "log")
	up, err := localstack.StartProcess(localstack.ProcessOptions{
		Path: filepath.Join(bin, "ctl"), Args: []string{"up", "--dir", dir}, Dir: "..", LogFile: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Stop(time.Minute) })
	var printed string
	stacktest.Eventually(t, time.Minute, func() error {
		content, err := os.ReadFile(log)
		printed = string(content)
		if err == nil && !strings.Contains(printed, "Ctrl-C stops everything.") {
			err = fmt.Errorf("it has not started: %s", printed)
		}
		return err
	})
	var source, curl, board, front string
	for line := range strings.Lines(printed) {
		line = strings.TrimSpace(line)
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "board" {
			board = fields[1]
		} else if len(fields) == 2 && fields[0] == "Stampede" {
			front = fields[1]
		}
		if strings.HasPrefix(line, ". ") {
			source = line
		}
		if strings.HasPrefix(line, "curl ") {
			curl = line
		}
	}
	env := sourced(t, filepath.Join(dir, "up.env"))
	if status, err := paste(t, source+"\n"+curl); err != nil || status != http.StatusAccepted {
		t.Errorf("the curl line %q answers %d: %v", curl, status, err)
	}
	if err := expectStatus(board, http.StatusOK); err != nil {
		t.Errorf("the board: %v", err)
	}
	for _, path := range []string{"/api/products", "/docs"} { // the edge's
		if err := expectStatus(front+path, http.StatusOK); err != nil {
			t.Error(err)
		}
	}
	if err := expectStatus(front+"/api/me", http.StatusUnauthorized); err != nil { // the shop's
		t.Error(err)
	}
	if out, err := runCtl(t.Context(), bin, dir, env, "audit", "--wait", "10s"); err != nil ||
		!strings.Contains(out, "audit: ok") {
		t.Errorf("%v: %s", err, out)
	}
	if err := up.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-up.Done(): // a second signal, as Stop sends it, would end it at once
	case <-time.After(time.Minute):
	}
	if up.Stop(time.Minute) || up.ExitCode() != 0 {
		t.Errorf("after Ctrl-C it ended with %d: %s", up.ExitCode(), up.LogTail())
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "bin" {
		t.Errorf("it left %v", left)
	}
}

// paste does what a shell and curl make of a line, on a machine that may have no curl: the shell takes
// the line apart, and this test sends the request.
func paste(t *testing.T, line string) (status int, err error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `curl() { printf '%s\n' "$@"; }`+"\n"+line).Output()
	if err != nil {
		return 0, err
	}
	args := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	var url, body string
	header := http.Header{}
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-i":
		case "-H":
			i++
			name, value, _ := strings.Cut(args[i], ": ")
			header.Set(name, value)
		case "-d":
			i++
			body = args[i]
		default:
			url = args[i]
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, api().Check(req.Method, req.URL.EscapedPath(), resp.StatusCode, resp.Header, raw)
}

// TestWorkerIsKilled ends a worker in the middle of a sale, with messages in its hands.
func TestWorkerIsKilled(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "1500")
	// A worker cannot decide while the product is locked, so it has messages in its hands.
	db, err := sql.Open("mysql", s.stack.MariaDB.DSN("stampede"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	lock, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Rollback()
	if _, err := lock.ExecContext(t.Context(), "SELECT id FROM products WHERE id = 1 FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	s.startEdge()
	victim := s.startWorker()
	c := newCrowd()
	sold := make(chan struct{})
	go func() {
		defer close(sold)
		s.rush(t.Context(), c, 1, 2000, 500)
	}()
	stacktest.Eventually(t, time.Minute, func() error {
		if c.accepted() < 500 {
			return fmt.Errorf("only %d orders are accepted", c.accepted())
		}
		return holdsMessages(victim)
	})
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := lock.Rollback(); err != nil {
		t.Fatal(err)
	}
	s.startWorker()
	s.startWorker()
	<-sold
	if len(c.errors) > 0 || len(c.orders) != 1500 || c.refused["sold_out"] != 500 {
		t.Errorf("%d accepted, refused %v, without an answer %v", len(c.orders), c.refused, c.errors)
	}
	s.mustBeClean(c, 2*time.Minute, 1500) // what the worker held comes back after 60 s
}

// holdsMessages asks a worker's metrics whether it has messages in its hands right now.
func holdsMessages(p *program) error {
	metrics, err := scrape(p)
	if err != nil {
		return err
	}
	if strings.Contains(metrics, "\nstampede_messages_held 0\n") {
		return fmt.Errorf("the worker holds no message")
	}
	return nil
}

func scrape(p *program) (string, error) {
	resp, err := http.Get(p.admin + "/metrics")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	return body.String(), err
}

// TestEdgeIsKilled ends an edge in the middle of a sale. What it had reserved and not sent is sent by
// the workers' outbox relay; what it had promised is kept.
func TestEdgeIsKilled(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "3000")
	victim := s.startEdge()
	s.startWorker()
	c := newCrowd()
	sold := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		defer close(sold)
		s.rush(ctx, c, 1, 2000, 500)
	}()
	stacktest.Eventually(t, time.Minute, func() error {
		if c.accepted() < 300 {
			return fmt.Errorf("only %d orders are accepted", c.accepted())
		}
		return nil
	})
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	stop()
	<-sold
	s.startEdge()
	s.rush(t.Context(), c, 2001, 5500, 700)
	// Requests without an answer may have become orders or not, but every unit is sold in the end.
	if len(c.orders) > 3000 || len(c.orders)+len(c.errors) < 3000 || c.refused["sold_out"] == 0 {
		t.Errorf("%d accepted, refused %v, %d without an answer", len(c.orders), c.refused, len(c.errors))
	}
	s.mustBeClean(c, 2*time.Minute, 3000)
}

// TestGracefulStop stops the edge and the workers while orders are coming in: nobody who was connected
// goes without an answer, and the programs end by themselves, well and in time.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "3000")
	edge, worker := s.startEdge(), s.startWorker()
	c := newCrowd()
	ctx, stop := context.WithCancel(t.Context())
	sold := make(chan struct{})
	go func() {
		defer close(sold)
		s.rush(ctx, c, 1, 5000, 500)
	}()
	stacktest.Eventually(t, time.Minute, func() error {
		if c.accepted() < 300 {
			return fmt.Errorf("only %d orders are accepted", c.accepted())
		}
		return nil
	})
	var stops sync.WaitGroup
	for _, p := range []*program{worker, edge} {
		stops.Go(func() {
			if p.Stop(25*time.Second) || p.ExitCode() != 0 {
				t.Errorf("after SIGTERM it ended with %d: %s", p.ExitCode(), p.LogTail())
			}
		})
	}
	stops.Wait()
	stop()
	<-sold
	for _, err := range c.errors {
		// New connections are refused, and a connection may be closed just when its client uses it
		// again; a request that was taken gets its answer.
		if text := err.Error(); !strings.Contains(text, "connection refused") && !strings.Contains(text, "EOF") &&
			!strings.Contains(text, "reset by peer") && !strings.Contains(text, "closed idle connection") {
			t.Errorf("a buyer got no answer: %v", err)
		}
	}
	s.startEdge()
	s.startWorker()
	promised := c.accepted()
	s.rush(t.Context(), c, 5001, 5100, 500)
	if got := c.accepted() - promised; got != 100 {
		t.Errorf("after the restart %d of 100 orders were accepted: %v %v", got, c.refused, c.errors)
	}
	a := s.audit(2 * time.Minute)
	if !a.OK {
		t.Fatalf("the audit found: %s", strings.Join(a.Problems, "; "))
	}
	s.mustBeClean(c, time.Minute, a.Products[0].CompletedUnits)
}

// TestGarbageOnTheQueue puts a message that is no order among many that are.
func TestGarbageOnTheQueue(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "200")
	s.startEdge()
	s.startWorker()
	queue := localstack.SQSClient(s.stack.SQS.URL())
	url, err := queue.GetQueueUrl(t.Context(), &awssqs.GetQueueUrlInput{QueueName: aws.String(localstack.QueueName)})
	if err != nil {
		t.Fatal(err)
	}
	garbage := []string{"garbage", `{"v":2,"orders":[]}`, `{"v":1,"orders":[{"order_id":"x"}]}`}
	c := newCrowd()
	for i, body := range garbage {
		s.rush(t.Context(), c, 1+50*i, 50*(i+1), 1000)
		if _, err := queue.SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: url.QueueUrl,
			MessageBody: &body}); err != nil {
			t.Fatal(err)
		}
	}
	s.rush(t.Context(), c, 151, 200, 1000)
	s.mustBeClean(c, 30*time.Second, 200)

	dlq, err := queue.GetQueueUrl(t.Context(), &awssqs.GetQueueUrlInput{QueueName: aws.String(localstack.DLQName)})
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]string{}
	stacktest.Eventually(t, 30*time.Second, func() error {
		out, err := queue.ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{
			QueueUrl: dlq.QueueUrl, MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"},
		})
		if err != nil {
			return err
		}
		for _, m := range out.Messages {
			reasons[aws.ToString(m.Body)] = aws.ToString(m.MessageAttributes["stampede-reason"].StringValue)
		}
		if len(reasons) != len(garbage) {
			return fmt.Errorf("dead letters: %v", reasons)
		}
		return nil
	})
	for _, body := range garbage {
		if !strings.Contains(reasons[body], "cannot be decoded") {
			t.Errorf("%q is a dead letter for the reason %q", body, reasons[body])
		}
	}
}

// TestEveryMessageTwice has the queue deliver every message twice, in no order, to two workers.
func TestEveryMessageTwice(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.stack.SQS.SetFaults(sqs.Faults{Duplicate: 1, Reorder: 1, Seed: 1})
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "500", "--limit", "1")
	s.startEdge()
	workers := []*program{s.startWorker(), s.startWorker()}
	c := newCrowd()
	s.rush(t.Context(), c, 1, 800, 400)
	if len(c.orders) != 500 || c.refused["sold_out"] != 300 || len(c.errors) > 0 {
		t.Errorf("%d accepted, refused %v, without an answer %v", len(c.orders), c.refused, c.errors)
	}
	s.stack.SQS.SetFaults(sqs.Faults{})
	s.mustBeClean(c, 2*time.Minute, 500)
	repeated := false
	for _, w := range workers {
		metrics, err := scrape(w)
		if err != nil {
			t.Fatal(err)
		}
		repeated = repeated || !strings.Contains(metrics, "\nstampede_orders_repeated_total 0\n")
	}
	if !repeated {
		t.Error("no message was delivered twice; the test proves nothing")
	}
}

// TestRestock sells out, adds units while buyers keep coming, and sells out again.
func TestRestock(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "20")
	s.startEdge()
	s.startWorker()
	c := newCrowd()
	s.rush(t.Context(), c, 1, 40, 400)
	for range 2 { // the second time changes nothing
		s.mustCtl("restock", "--product", "1", "--units", "10", "--id", "delivery-1")
	}
	s.rush(t.Context(), c, 41, 80, 400)
	if len(c.orders) != 30 || c.refused["sold_out"] != 50 {
		t.Errorf("%d accepted, refused %v", len(c.orders), c.refused)
	}
	s.mustBeClean(c, 30*time.Second, 30)
	if out, err := s.ctl("restock", "--product", "9", "--units", "10", "--id", "x"); err == nil ||
		!strings.Contains(err.Error(), "no product 9") {
		t.Errorf("restocking a product that does not exist: %v %s", err, out)
	}
}

// TestBanAndRole keeps a buyer out and lets them in again while the edge runs, and makes a user an admin.
func TestBanAndRole(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.startServers()
	orders := func() int {
		status, _ := request(t, "GET", s.url+"/api/orders", s.token(1), "")
		return status
	}
	becomes := func(want int) {
		t.Helper()
		stacktest.Eventually(t, 10*time.Second, func() error {
			if got := orders(); got != want {
				return fmt.Errorf("a buyer gets %d, want %d", got, want)
			}
			return nil
		})
	}
	becomes(200)
	s.mustCtl("ban", "add", "--user", "1", "--reason", "bot", "--for", "1h")
	if out := s.mustCtl("ban", "list"); !strings.Contains(out, "user 1") || !strings.Contains(out, "bot") {
		t.Errorf("the list of bans: %s", out)
	}
	becomes(403)
	s.mustCtl("ban", "lift", "--user", "1")
	becomes(200)
	s.mustCtl("ban", "add", "--address", "127.0.0.1", "--reason", "test")
	becomes(403)
	s.mustCtl("ban", "lift", "--address", "127.0.0.1")
	becomes(200)
	for _, args := range [][]string{
		{"ban", "add", "--reason", "x"}, {"ban", "add", "--user", "1", "--address", "::1", "--reason", "x"},
		{"ban", "add", "--address", "0.0.0.0/0", "--reason", "x"}, {"ban", "add", "--user", "1"},
		{"ban", "lift", "--user", "9"},
		{"user", "role", "--email", "nobody@example.org", "--role", "admin"},
		{"user", "logout", "--email", "nobody@example.org"}, {"user", "disable"},
		{"user", "enable", "--email", "ada@example.org"},
	} {
		if out, err := s.ctl(args...); err == nil {
			t.Errorf("ctl %q: %s", args, out)
		}
	}

	const password = `"password":"seven quiet otters knit"`
	if status, body := request(t, "POST", s.front+"/api/register", "", `{"email":"ada@example.org","name":"Ada",`+
		password+`}`); status != 201 {
		t.Fatal(status, body)
	}
	login := func() string {
		t.Helper()
		status, body := request(t, "POST", s.front+"/api/login", "", `{"email":"ada@example.org",`+password+`}`)
		access, _ := body["access_token"].(string)
		if status != 200 || access == "" {
			t.Fatal(status, body)
		}
		return access
	}
	buyer := login()
	s.mustCtl("user", "role", "--email", "ada@example.org", "--role", "admin")
	// The token that says buyer is valid no longer.
	stacktest.Eventually(t, 10*time.Second, func() error {
		if status, body := request(t, "GET", s.front+"/api/me", buyer, ""); status != 401 {
			return fmt.Errorf("the old token gets %d %v", status, body)
		}
		return nil
	})
	admin := login()
	if status, body := request(t, "GET", s.front+"/api/me", admin, ""); status != 200 || body["role"] != "admin" {
		t.Errorf("/api/me says %d %v", status, body)
	}

	if out := s.mustCtl("user", "disable", "--email", "ada@example.org"); !strings.Contains(out,
		"is disabled; 1 sessions ended") {
		t.Error(out)
	}
	stacktest.Eventually(t, 10*time.Second, func() error {
		if status, body := request(t, "GET", s.front+"/api/me", admin, ""); status != 401 {
			return fmt.Errorf("the token of a disabled user gets %d %v", status, body)
		}
		return nil
	})
	if status, body := request(t, "POST", s.front+"/api/login", "", `{"email":"ada@example.org",`+password+
		`}`); status != 403 {
		t.Errorf("a login to a disabled account: %d %v", status, body)
	}
	s.mustCtl("user", "enable", "--email", "ada@example.org")
	admin = login()
	s.mustCtl("user", "logout", "--email", "ada@example.org")
	stacktest.Eventually(t, 10*time.Second, func() error {
		if status, body := request(t, "GET", s.front+"/api/me", admin, ""); status != 401 {
			return fmt.Errorf("the token of a user who was logged out gets %d %v", status, body)
		}
		return nil
	})
}

package queue_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"stampede/internal/queue"
	"stampede/localstack"
)

// Tests of this file change the environment, so that none of them is parallel.

func setEnv(t *testing.T, endpoint string) {
	t.Helper()
	for _, variable := range localstack.SQSEnv(endpoint) {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
}

func TestOpenNamesTheQueueThatIsMissing(t *testing.T) {
	setEnv(t, newServer(t).URL())
	for _, names := range [][2]string{{"no-such-queue", dlqName}, {ordersName, "no-such-queue"}} {
		_, err := queue.Open(t.Context(), names[0], names[1])
		if err == nil || !strings.Contains(err.Error(), `"no-such-queue"`) {
			t.Errorf("error: %v", err)
		}
	}
}

func TestOpenWantsARegion(t *testing.T) {
	setEnv(t, newServer(t).URL())
	nothing := t.TempDir() + "/nothing"
	t.Setenv("AWS_CONFIG_FILE", nothing)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", nothing)
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := queue.Open(t.Context(), ordersName, dlqName); err == nil ||
		!strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("error: %v", err)
	}
}

func TestOpenIsBoundedByItsContext(t *testing.T) {
	server := newServer(t)
	setEnv(t, server.URL())
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := queue.Open(ctx, ordersName, dlqName); err == nil {
		t.Error("a server that is down has the queue")
	}
}

// A client that closes a connection while it reads an answer loses the messages in it, until they become visible again.
func TestConnectionsAreKept(t *testing.T) {
	var conns atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := `{"QueueUrl":"http://` + r.Host + `/000000000000/orders"}`
		if r.Header.Get("X-Amz-Target") == "AmazonSQS.ReceiveMessage" {
			answer = "{}"
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = io.WriteString(w, answer)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	setEnv(t, server.URL)
	q, err := queue.Open(t.Context(), ordersName, dlqName)
	if err != nil {
		t.Fatal(err)
	}
	const receives = 3_000 // one in some hundred was enough to see it
	for range receives {
		if _, err := q.Receive(t.Context(), 0, time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("%d requests, one after the other, took %d connections", receives, n)
	}
}

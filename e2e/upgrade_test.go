package e2e

import (
	"context"
	"errors"
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

	"stampede/internal/lab"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// versionBefore is the commit whose programs are replaced by these: the last one before message version 2.
const versionBefore = "5162636087d0f11a3ba98512c0cd46cfac3efda0"

// buildBefore builds the programs of the version before.
func buildBefore(t *testing.T) string {
	t.Helper()
	source, bin := t.TempDir(), t.TempDir()

	// A clone that has not all of the history fetches the one commit that it lacks.
	if exec.CommandContext(t.Context(), "git", "-C", "..", "cat-file", "-e", versionBefore).Run() != nil {
		fetch := exec.CommandContext(t.Context(), "git", "-C", "..", "fetch", "--quiet", "--depth=1", "origin",
			versionBefore)
		if out, err := fetch.CombinedOutput(); err != nil {
			t.Logf("fetch the version before: %v\n%s", err, out)
		}
	}
	archive := exec.CommandContext(t.Context(), "git", "-C", "..", "archive", "--format=tar", "-o",
		filepath.Join(source, "source.tar"), versionBefore)
	if out, err := archive.CombinedOutput(); err != nil {
		t.Fatalf("the commit of the version before is needed; fetch all of the history (git fetch --unshallow): %v\n%s",
			err, out)
	}
	unpack := exec.CommandContext(t.Context(), "tar", "-xf", "source.tar")
	unpack.Dir = source
	if out, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	err := lab.Build(context.Background(), source, "-o", bin+string(filepath.Separator), "./edge", "./worker", "./ctl")
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// TestRollingUpgrade replaces the programs of the version before, one after the other and while orders come in. An
// operator does what he does at any release: ctl migrate, then new workers and edges beside the old ones, which are
// then stopped. The new edge waits until no old worker is left; nothing is lost, nothing becomes a dead letter, and a
// key leads to its order at edges of both versions.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	before := buildBefore(t)
	s := newSystemFrom(t, localstack.Options{}, before)
	s.mustCtl("product", "add", "--name", "ticket", "--price", "100", "--stock", "500")
	oldEdge, oldWorker := s.startEdge(), s.startWorker()
	oldURL := s.url
	c := newCrowd()

	// Orders come in all the time, some of which the old worker decides.
	atOld := *s
	var sale sync.WaitGroup
	selling, endSale := context.WithCancel(t.Context())
	defer endSale()
	sale.Go(func() { atOld.rush(selling, c, 1, 100_000, 20) })
	stacktest.Eventually(t, time.Minute, func() error {
		if c.accepted() < 40 {
			return errors.New("too few orders are accepted")
		}
		return nil
	})
	first := s.orderUnder(t, oldURL, "first")

	s.bin = bin
	s.mustCtl("migrate")
	s.startWorker()
	newURL := s.startWaitingEdge(t, oldWorker)

	// Edges of both versions sell.
	if again := s.orderUnder(t, newURL, "first"); again != first {
		t.Errorf("the key of an order leads to %s at an old edge, and to %s at a new one", first, again)
	}
	if second, again := s.orderUnder(t, newURL, "second"), s.orderUnder(t, oldURL, "second"); again != second {
		t.Errorf("the key of an order leads to %s at a new edge, and to %s at an old one", second, again)
	}
	s.rush(t.Context(), c, 200_000, 200_100, 100)

	endSale()
	sale.Wait()
	oldEdge.Stop(lab.StopWait)
	s.rush(t.Context(), c, 300_000, 300_500, 200) // until it is sold out

	if len(c.errors) > 0 {
		t.Errorf("%d requests had no answer, such as %v", len(c.errors), c.errors[0])
	}
	for code, n := range c.refused {
		if code != "sold_out" {
			t.Errorf("%d orders were refused: %s", n, code)
		}
	}
	s.mustBeClean(c, time.Minute, 500)
	if a := s.audit(0); a.Queue.Dead != 0 {
		t.Errorf("there are %d dead letters", a.Queue.Dead)
	}
}

// startWaitingEdge starts an edge of this version beside a worker of the version before. It is not ready, and takes no
// order, until the worker has ended.
func (s *system) startWaitingEdge(t *testing.T, oldWorker *program) (url string) {
	t.Helper()
	log := filepath.Join(s.dir, fmt.Sprintf("%d-edge.log", s.started+1))
	started := make(chan struct{})
	go func() {
		defer close(started)
		s.startEdge()
	}()

	var edge string
	stacktest.Eventually(t, time.Minute, func() error {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		_, rest, ok := strings.Cut(string(text), `"admin":"`)
		if !ok {
			return errors.New("the new edge has not begun")
		}
		edge, _, _ = strings.Cut(rest, `"`)
		response, err := http.Get("http://" + edge + "/readyz")
		if err != nil {
			return err
		}
		defer response.Body.Close()
		why, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusServiceUnavailable ||
			!strings.Contains(string(why), "older version") {
			return fmt.Errorf("the new edge answers %s %s, %v", response.Status, why, err)
		}
		return nil
	})

	oldWorker.Stop(lab.StopWait)
	select {
	case <-started:
	case <-t.Context().Done():
	}
	return s.url
}

// orderUnder orders a unit at an edge under an idempotency key, and returns the order's id.
func (s *system) orderUnder(t *testing.T, url, key string) string {
	t.Helper()
	status, body := request(t, "POST", url+"/api/orders", s.token(1<<40), `{"product_id":1,"quantity":1}`,
		"Idempotency-Key", key)
	if status != http.StatusAccepted {
		t.Fatalf("ordered under the key %q: %d %v", key, status, body)
	}
	id, _ := body["order_id"].(string)
	return id
}

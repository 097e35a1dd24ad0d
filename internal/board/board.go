// Package board shows a running sale to operators: a page, and the events that keep it up to date. Each process reports
// on itself in Redis, so that the board of any of them shows all.
package board

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/internal/ledger"
	"stampede/internal/queue"
	"stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
)

const (
	// maxViewers bounds the pages that one process keeps up to date.
	maxViewers = 100
	// writeTimeout is how long a viewer may take to take an update.
	writeTimeout = 5 * time.Second
	// kept is the time of which the charts tell.
	kept = 2 * time.Minute
	// maxPoints bounds the points of the charts.
	maxPoints = int(kept / reportInterval)
)

// errFull says that no more viewers are taken.
var errFull = fmt.Errorf("this process has %d viewers of its board, and takes no more: close one, or use the board "+
	"of another process", maxViewers)

// errClosed says that the process ends.
var errClosed = errors.New("this process is stopping")

// Board is the board of a process, and what makes the process appear on the boards of all. It looks at the system only
// while somebody watches, once for all viewers and at most once a second.
type Board struct {
	mux     http.ServeMux
	sampler sampler

	running context.Context // ends with Close
	end     context.CancelFunc
	loops   sync.WaitGroup

	mu       sync.Mutex
	viewers  map[chan []byte]struct{}
	sampling bool      // there is a goroutine that does
	sampled  time.Time // last
	points   []point   // the oldest first
}

// Start begins to report on this process, an edge or a worker, by some of its metrics, and makes its board. It fails at
// nothing: who cannot be reported on does not appear.
func Start(role string, rdb *redis.Client, books *ledger.Ledger, q *queue.Queue,
	metrics ...prometheus.Collector) *Board {
	b := &Board{
		sampler: sampler{redis: rdb, stock: stock.New(rdb), ledger: books, queue: q},
		viewers: map[chan []byte]struct{}{},
	}
	b.running, b.end = context.WithCancel(context.Background())
	b.mux.HandleFunc("GET /board", servePage)
	b.mux.HandleFunc("GET /board/events", b.serveEvents)
	if telemetry.Enabled {
		b.loops.Go(func() { newReporter(role, rdb, metrics).run(b.running) })
	}
	return b
}

// Close ends the streams of all viewers and the reports. It waits a second at most for Redis to hear of it.
func (b *Board) Close() {
	b.mu.Lock() // who joins after this finds the board closed, and starts nothing
	b.end()
	b.mu.Unlock()
	b.loops.Wait()
}

// ServeHTTP serves /board and what is below.
func (b *Board) ServeHTTP(w http.ResponseWriter, r *http.Request) { b.mux.ServeHTTP(w, r) }

// serveEvents sends the points of the last minutes, and then an update each second, as server-sent events (WHATWG HTML,
// section 9.2). The updates are the heartbeat: they come also when there is nothing to tell.
func (b *Board) serveEvents(w http.ResponseWriter, r *http.Request) {
	updates, points, err := b.join()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer b.leave(updates)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	control := http.NewResponseController(w)
	send := func(head string, data []byte) bool {
		if err := control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return false
		}
		if _, err := fmt.Fprintf(w, "%sdata: %s\n\n", head, data); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	history, err := json.Marshal(points)
	if err != nil || !send("retry: 1000\nevent: history\n", history) {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-b.running.Done():
			return
		case data := <-updates:
			if !send("", data) {
				return
			}
		}
	}
}

// join adds a viewer. The first one wakes the sampler.
func (b *Board) join() (chan []byte, []point, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.running.Err() != nil:
		return nil, nil, errClosed
	case len(b.viewers) >= maxViewers:
		return nil, nil, errFull
	}
	updates := make(chan []byte, 1)
	b.viewers[updates] = struct{}{}
	if !b.sampling {
		b.sampling = true
		b.loops.Go(b.sample)
	}
	b.forget(time.Now())
	return updates, append([]point{}, b.points...), nil
}

func (b *Board) leave(updates chan []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.viewers, updates)
}

// sample looks at the system for as long as there are viewers.
func (b *Board) sample() {
	for {
		b.mu.Lock()
		if len(b.viewers) == 0 || b.running.Err() != nil {
			b.sampling = false
			b.mu.Unlock()
			return
		}
		wait := time.Until(b.sampled.Add(reportInterval))
		b.mu.Unlock()
		select {
		case <-b.running.Done():
			continue
		case <-time.After(wait):
		}
		b.mu.Lock()
		b.sampled = time.Now()
		b.mu.Unlock()
		b.show(b.sampler.look(b.running))
	}
}

// show hands an update to all viewers. One that has not taken the last one yet misses this one.
func (b *Board) show(u update) {
	data, err := json.Marshal(u)
	if err != nil {
		panic(err) // it holds numbers and text
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.points = append(b.points, u.Point)
	b.forget(time.Now())
	for updates := range b.viewers {
		select {
		case updates <- data:
		default:
		}
	}
}

// forget drops the points that no chart shows any more.
func (b *Board) forget(now time.Time) {
	oldest := float64(now.Add(-kept).UnixMilli())
	for len(b.points) > 0 && (*b.points[0][0] < oldest || len(b.points) > maxPoints) {
		b.points = b.points[1:]
	}
}

func servePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", policy)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = strings.NewReader(page).WriteTo(w) // if the viewer has gone, nobody is left to hear of it
}

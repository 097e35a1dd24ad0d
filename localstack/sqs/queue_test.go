package sqs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
	"unicode/utf8"
)

func testQueue(change func(*config)) *queue {
	cfg := defaultConfig(1)
	if change != nil {
		change(cfg)
	}
	return newQueue("q", "arn:q", "http://q", cfg, 1)
}

func testMessage(now int64) *message { return &message{id: newID(), body: []byte("x"), sentAt: now} }

func takeAll(q *queue, now, visibility int64) (all []delivery) {
	for {
		got, _ := q.take(now, &receiving{max: 10, visibility: visibility}, nil)
		if len(got) == 0 {
			return all
		}
		all = append(all, got...)
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	q := testQueue(func(c *config) { c.retentionSeconds = 60 })
	for range 4 {
		q.send(0, testMessage(0))
	}
	late := testMessage(0)
	late.visibleAt = 70 * second
	q.send(0, late)
	received := takeAll(q, 1, 65*second) // Expires in flight.
	q.send(1, testMessage(1*second))
	if got := q.counts(59 * second); got != (counts{1, 4, 1}) {
		t.Errorf("before: %+v", got)
	}
	if got := q.counts(60*second + 1); got != (counts{1, 4, 1}) {
		t.Errorf("one of the visible messages is younger: %+v", got)
	}
	if got := q.counts(71 * second); got != (counts{}) {
		t.Errorf("after: %+v", got)
	}
	if len(q.received) != 0 {
		t.Errorf("%d messages are still known", len(q.received))
	}
	if err := q.remove(72*second, received[0].handle); err != nil {
		t.Errorf("deleting what has expired: %v", err)
	}
}

// A message that comes back is behind younger ones in the ready list, where its age must still count.
func TestRetentionBehindYounger(t *testing.T) {
	t.Parallel()
	q := testQueue(func(c *config) { c.retentionSeconds = 60 })
	q.send(0, testMessage(0))
	old := takeAll(q, 0, 50*second)
	q.send(40*second, testMessage(40*second))
	q.counts(55 * second)
	got := takeAll(q, 61*second, second)
	if len(got) != 1 || got[0].id == old[0].id {
		t.Errorf("got %d messages", len(got))
	}
}

func TestInFlightLimit(t *testing.T) {
	t.Parallel()
	q := testQueue(nil)
	for range maxInFlight + 5 {
		q.send(0, testMessage(0))
	}
	got := takeAll(q, 0, 100*second)
	if len(got) != maxInFlight {
		t.Fatalf("%d in flight", len(got))
	}
	s := &Server{done: make(chan struct{})}
	s.queues.Store(&map[string]*queue{})
	q.config.Load().retentionSeconds = 1 << 32 // The server's clock is far ahead of this test's.
	for _, d := range got {
		q.mu.Lock()
		d.visibleAt = clock() + 100*second
		q.mu.Unlock()
	}
	c := &call{request: request{queueURL: []byte("q")}}
	if err := s.receive(c, q); err != errOverLimit {
		t.Errorf("above the limit: %v", err)
	}
	if err := q.remove(0, got[0].handle); err != nil {
		t.Error(err)
	}
	if err := s.receive(c, q); err != nil || len(c.received) != 1 {
		t.Errorf("below the limit: %v, %d", err, len(c.received))
	}
}

func TestVisibilityBound(t *testing.T) {
	t.Parallel()
	q := testQueue(nil)
	q.send(0, testMessage(0))
	h := takeAll(q, 0, maxVisibilitySeconds*second)[0].handle
	for _, test := range []struct {
		at, seconds int64
		refused     bool
	}{
		{0, 43200, false}, {second, 43200, true}, {second, 43199, false}, {11 * 3600 * second, 3600, false},
		{11 * 3600 * second, 3601, true},
	} {
		if err := q.changeVisibility(test.at, h, test.seconds); (err != nil) != test.refused {
			t.Errorf("%d s at %v: %v", test.seconds, time.Duration(test.at), err)
		}
	}
}

// TestMillion bounds the cost of each step in a queue with a million messages: a step that looks at all of them would
// take hours.
func TestMillion(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs half a gigabyte")
	}
	q := testQueue(nil)
	for i := range 1_000_000 {
		m := testMessage(0)
		if i%2 == 0 {
			m.visibleAt = rand.Int64N(1000) * second
		}
		q.send(0, m)
	}
	begin := time.Now()
	for range 200_000 {
		got, _ := q.take(0, &receiving{max: 1, visibility: rand.Int64N(100) * second}, nil)
		if len(got) == 0 {
			t.Fatal("nothing is left")
		}
		if err := q.remove(0, got[0].handle); err != nil {
			t.Fatal(err)
		}
		q.send(0, testMessage(0))
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if got := q.counts(0); got.ready+got.inFlight+got.delayed != 1_000_000 {
		t.Errorf("got %+v", got)
	}
}

// TestModel compares a queue with the plainest description of one, through random steps in random time.
func TestModel(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	type entry struct {
		visibleAt int64
		handle    handle
		received  bool
	}
	q := testQueue(func(c *config) { c.retentionSeconds = 1 << 30 })
	model := map[[16]byte]*entry{}
	now := int64(0)
	for step := range 5_000 {
		now += rng.Int64N(second / 2)
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("seed %d, step %d: %s", seed, step, fmt.Sprintf(format, args...))
		}
		random := func() ([16]byte, *entry) {
			ids := slices.SortedFunc(maps.Keys(model), func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
			if len(ids) == 0 {
				return [16]byte{}, &entry{}
			}
			id := ids[rng.IntN(len(ids))]
			return id, model[id]
		}
		switch rng.IntN(5) {
		case 0:
			m := testMessage(now)
			m.visibleAt = now + rng.Int64N(3)*second
			model[m.id] = &entry{visibleAt: m.visibleAt}
			q.send(now, m)
		case 1, 2:
			visibility := rng.Int64N(4) * second
			want := 0
			for _, e := range model {
				if e.visibleAt <= now {
					want++
				}
			}
			got, _ := q.take(now, &receiving{max: 3, visibility: visibility}, nil)
			if len(got) != min(want, 3) {
				fail("received %d, want %d", len(got), min(want, 3))
			}
			for _, d := range got {
				e := model[d.id]
				if e == nil || e.visibleAt > now {
					fail("received what is deleted or hidden")
				}
				e.visibleAt, e.handle, e.received = now+visibility, d.handle, true
			}
		case 3:
			if id, e := random(); e.received {
				if err := q.remove(now, e.handle); err != nil {
					fail("delete: %v", err)
				}
				delete(model, id)
			}
		case 4:
			if _, e := random(); e.received {
				seconds := rng.Int64N(4)
				err := q.changeVisibility(now, e.handle, seconds)
				if e.visibleAt <= now != (err == errMessageNotInflight) {
					fail("change: %v", err)
				}
				if err == nil {
					e.visibleAt = now + seconds*second
				}
			}
		}
		visible, flying := 0, 0
		for _, e := range model {
			switch {
			case e.visibleAt <= now:
				visible++
			case e.received:
				flying++
			}
		}
		if got := q.counts(now); got != (counts{visible, flying, len(model) - visible - flying}) {
			fail("%+v, want %d, %d of %d", got, visible, flying, len(model))
		}
	}
}

// FuzzDecoder compares the decoder with encoding/json: it must accept the same documents and read the same strings.
func FuzzDecoder(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"MessageBody":"a\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00\ud83d"}`,
		`{"Entries":[{"Id":"1","DelaySeconds":-5},null]}`,
		`{"Attributes":{"a":"b"},"x":[1,-0,1e5,1.5E-3,{"y":null}]}`, `{"a":01}`, `{"a":1.}`, `{"a":"` + "\x01" + `"}`,
		`{"a":tru}`, `{"a"}`,
		`{"MessageAttributes":{"a":{"DataType":"Binary","BinaryValue":"eA=="}}}`, ` { "MaxResults" : 5 } `, `{"a":1,}`,
		`{"\u`, `{"a":"\ud83d\u`,
		`{"MaxResults":99999999999999999999}`, `{"AttributeNames":["a",null,"b"]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var d decoder
		var body []byte
		d.reset(in)
		ok := d.document(func(key []byte) bool {
			if string(key) != "MessageBody" || d.peek() != '"' {
				return d.skip(0)
			}
			raw, text, ok := d.str()
			body = text
			if ok && !json.Valid(slices.Concat([]byte{'"'}, raw, []byte{'"'})) {
				t.Errorf("%q would not be valid in an answer", raw)
			}
			return ok
		})
		var want map[string]any
		err := json.Unmarshal(in, &want)
		if ok && (err != nil || want == nil) {
			t.Fatalf("accepted %q: %v", in, err)
		}
		if !ok && err == nil && want != nil && bytes.Count(in, []byte("["))+bytes.Count(in, []byte("{")) < maxDepth {
			t.Fatalf("refused %q", in)
		}
		if text, isText := want["MessageBody"].(string); ok && isText && utf8.Valid(body) && utf8.Valid(in) &&
			text != string(body) {
			t.Errorf("read %q, want %q", body, text)
		}
		quoted := appendQuoted(nil, in)
		var back string
		if err := json.Unmarshal(quoted, &back); err != nil || utf8.Valid(in) && back != string(in) {
			t.Errorf("%q quoted is %q: %v", in, quoted, err)
		}
		c := new(call)
		c.decode(in) // Must not panic.
	})
}

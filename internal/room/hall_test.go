package room

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"stampede/internal/order"
	"stampede/internal/redis"
	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) {
	stacktest.Main(m, stacktest.MariaDB|stacktest.Redis|stacktest.RedisCluster)
}

// rig is the room of a product that is the test's own, in a Redis that may hold others.
type rig struct {
	*Hall
	id order.ProductID
	c  Commitment
}

var lastProduct atomic.Int64

var usual = Settings{State: Open, Rate: 100, Overbook: 1200, Grace: time.Minute, PassTTL: time.Minute}

func newRig(t *testing.T, url string, starts time.Time) *rig {
	t.Helper()
	rdb, err := redis.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	r := &rig{Hall: NewHall(rdb), id: order.ProductID(lastProduct.Add(1)), c: seedOf(1).Commitment()}
	r.startAt(t, starts)
	r.put(t, usual)
	return r
}

func (r *rig) startAt(t *testing.T, at time.Time) {
	t.Helper()
	if err := r.rdb.HSet(t.Context(), keysOf(r.id).sale, "starts_at", at.UnixMilli()).Err(); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) put(t *testing.T, s Settings) {
	t.Helper()
	if err := r.Put(t.Context(), &Room{Product: r.id, Settings: s, Seed: seedOf(1), Early: -1}, 0); err != nil {
		t.Fatal(err)
	}
}

// join has users join, who have no tickets.
func (r *rig) join(t *testing.T, users ...order.UserID) (Standing, []int64) {
	t.Helper()
	joiners := make([]Joiner, len(users))
	for i, user := range users {
		joiners[i] = Joiner{user, NoIndex, NoIndex}
	}
	standing, indexes, err := r.Join(t.Context(), r.id, joiners)
	if err != nil {
		t.Fatal(err)
	}
	return standing, indexes
}

// lead leads, and fails the test if somebody else does.
func (r *rig) lead(t *testing.T, caller string) Lead {
	t.Helper()
	lead, leads, err := r.Lead(t.Context(), r.id, caller, time.Minute)
	if err != nil || !leads {
		t.Fatalf("%s leads: %v, %v", caller, leads, err)
	}
	return lead
}

func (r *rig) call(t *testing.T, caller string, lead *Lead, budget int64, want int) {
	t.Helper()
	if n, err := r.Call(t.Context(), r.id, caller, lead, lead.Plan(budget)); err != nil || n != want {
		t.Fatalf("%d are called, want %d (error %v)", n, want, err)
	}
}

func (r *rig) enter(t *testing.T, arrivals ...Arrival) []time.Time {
	t.Helper()
	_, until, err := r.Enter(t.Context(), r.id, arrivals)
	if err != nil {
		t.Fatal(err)
	}
	return until
}

var (
	past   = time.Now().Add(-time.Hour)
	future = time.Now().Add(time.Hour)
)

var hallTests = []struct {
	name string
	run  func(*testing.T, string)
}{
	{"early and late", testEarlyAndLate},
	{"no room", testNoRoom},
	{"tickets", testTickets},
	{"closed", testClosed},
	{"giving up a turn", testGivingUp},
	{"entering", testEntering},
	{"no-shows", testNoShows},
	{"leading", testLeading},
	{"calling once", testCallingOnce},
	{"calling nobody", testCallingNobody},
	{"absent places", testAbsentPlaces},
	{"attending", testAttending},
}

func TestHall(t *testing.T) {
	t.Parallel()
	for _, test := range hallTests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, stacktest.RedisURL(t))
		})
	}
}

// TestHallOnCluster is not parallel, as the Cluster has only one database.
func TestHallOnCluster(t *testing.T) {
	url := stacktest.RedisClusterURL(t)
	for _, test := range hallTests {
		t.Run(test.name, func(t *testing.T) { test.run(t, url) })
	}
}

// Everybody has one index, however often they join. How many are early is fixed by the first call after the start.
func testEarlyAndLate(t *testing.T, url string) {
	r := newRig(t, url, future)
	if standing, indexes := r.join(t, 11, 12, 11); !slices.Equal(indexes, []int64{0, 1, 0}) || standing.Early != -1 ||
		standing.Joined != 2 || standing.State != Open || time.Since(standing.Now).Abs() > time.Minute {
		t.Errorf("joined: %v, %+v", indexes, standing)
	}
	if _, indexes := r.join(t, 12, 13); !slices.Equal(indexes, []int64{1, 2}) {
		t.Errorf("joined again: %v", indexes)
	}
	if lead := r.lead(t, "a"); lead.Early != -1 {
		t.Errorf("before the start there are %d early", lead.Early)
	}

	r.startAt(t, past)
	if standing, indexes := r.join(t, 14, 11); !slices.Equal(indexes, []int64{3, 0}) || standing.Early != 3 {
		t.Errorf("joined after the start: %v, %+v", indexes, standing)
	}
	r.startAt(t, future) // staff moves the start, and the draw stands
	if standing, indexes := r.join(t, 15); !slices.Equal(indexes, []int64{4}) || standing.Early != 3 {
		t.Errorf("joined after the start has moved: %v, %+v", indexes, standing)
	}
}

func testNoRoom(t *testing.T, url string) {
	r := newRig(t, url, past)
	r.id = 1 << 40
	if _, _, err := r.Join(t.Context(), r.id, []Joiner{{1, NoIndex, NoIndex}}); !errors.Is(err, ErrNoRoom) {
		t.Errorf("join: %v", err)
	}
	if _, err := r.Attend(t.Context(), r.id, []int64{1}); !errors.Is(err, ErrNoRoom) {
		t.Errorf("attend: %v", err)
	}
	if _, leads, err := r.Lead(t.Context(), r.id, "a", time.Minute); leads || !errors.Is(err, ErrNoRoom) {
		t.Errorf("lead: %v, %v", leads, err)
	}
	if until := r.enter(t, Arrival{1, 0}); !until[0].IsZero() {
		t.Errorf("enter: until %s", until[0])
	}
}

// After Redis has lost the places, who has a ticket has his index again, and nobody else gets it.
func testTickets(t *testing.T, url string) {
	r := newRig(t, url, past)
	r.join(t, 1, 2, 3)
	if err := r.rdb.Del(t.Context(), keysOf(r.id).places, keysOf(r.id).room).Err(); err != nil {
		t.Fatal(err)
	}
	r.put(t, usual)
	_, indexes, err := r.Join(t.Context(), r.id, []Joiner{{2, 1, NoIndex}, {3, 2, NoIndex}, {4, NoIndex, NoIndex}})
	if err != nil || !slices.Equal(indexes, []int64{1, 2, 3}) {
		t.Errorf("indexes %v, %v", indexes, err)
	}
	// What Redis has comes before what a ticket says.
	_, indexes, err = r.Join(t.Context(), r.id, []Joiner{{4, 9, NoIndex}, {1, 0, NoIndex}})
	if err != nil || !slices.Equal(indexes, []int64{3, 0}) {
		t.Errorf("indexes %v, %v", indexes, err)
	}
}

func testClosed(t *testing.T, url string) {
	r := newRig(t, url, past)
	r.join(t, 1)
	closed := usual
	closed.State = Closed
	r.put(t, closed)
	if standing, indexes := r.join(t, 1, 2); !slices.Equal(indexes, []int64{0, NoIndex}) || standing.State != Closed ||
		standing.Joined != 1 {
		t.Errorf("indexes %v, %+v", indexes, standing)
	}
}

// Who gives up a turn that is over gets the last place, once.
func testGivingUp(t *testing.T, url string) {
	r := newRig(t, url, past)
	r.join(t, 1, 2)
	for range 2 {
		_, indexes, err := r.Join(t.Context(), r.id, []Joiner{{1, 0, 0}})
		if err != nil || !slices.Equal(indexes, []int64{2}) {
			t.Errorf("indexes %v, %v", indexes, err)
		}
	}
	if _, indexes := r.join(t, 1, 2, 3); !slices.Equal(indexes, []int64{2, 1, 3}) {
		t.Errorf("indexes %v", indexes)
	}
}

// A turn is taken by one user, who is told the same whenever he asks.
func testEntering(t *testing.T, url string) {
	r := newRig(t, url, past)
	r.join(t, 1, 2, 3)
	lead := r.lead(t, "a")
	r.call(t, "a", &lead, 2, 2)
	until := r.enter(t, Arrival{1, 0}, Arrival{3, 2})
	if left := time.Until(until[0]); left < 50*time.Second || left > 61*time.Second || !until[1].IsZero() {
		t.Errorf("until %v", until)
	}
	if again := r.enter(t, Arrival{1, 0}, Arrival{9, 0}); again[0] != until[0] || !again[1].IsZero() {
		t.Errorf("again until %v", again)
	}
	if lead = r.lead(t, "a"); lead.Turns != 2 || lead.Front != 2 {
		t.Errorf("the leader sees %+v", lead)
	}

	// Who has ordered makes room for another.
	if err := r.Leave(t.Context(), r.id, []order.UserID{1, 7}); err != nil {
		t.Fatal(err)
	}
	if lead = r.lead(t, "a"); lead.Turns != 1 {
		t.Errorf("the leader sees %d turns", lead.Turns)
	}
	if until := r.enter(t, Arrival{1, 0}); !until[0].IsZero() {
		t.Errorf("a turn is taken twice, until %s", until[0])
	}
}

func testNoShows(t *testing.T, url string) {
	r := newRig(t, url, past)
	short := usual
	short.Grace, short.PassTTL = 30*time.Millisecond, 30*time.Millisecond
	r.put(t, short)
	r.join(t, 1, 2)
	lead := r.lead(t, "a")
	r.call(t, "a", &lead, 2, 2)
	_ = r.enter(t, Arrival{1, 0}) // in time or not
	for lead = r.lead(t, "a"); lead.Turns > 0; lead = r.lead(t, "a") {
		time.Sleep(time.Millisecond)
	}
	if until := r.enter(t, Arrival{1, 0}, Arrival{2, 1}); !until[0].IsZero() || !until[1].IsZero() {
		t.Errorf("they enter when their turn is over, until %v", until)
	}
	counts, err := r.rdb.HMGet(t.Context(), keysOf(r.id).room, "no_shows", "unused", "admitted").Result()
	if err != nil || counts[2] != "2" || count(counts[0])+count(counts[1]) != 2 || count(counts[0]) < 1 {
		t.Errorf("no-shows, unused and admitted %v, %v", counts, err)
	}
}

func count(v any) int64 {
	text, _ := v.(string)
	n, _ := strconv.ParseInt(text, 10, 64)
	return n
}

// One leads at a time, and another one when his time is over.
func testLeading(t *testing.T, url string) {
	r := newRig(t, url, past)
	r.join(t, 1, 2)
	ctx := t.Context()
	first, leads, err := r.Lead(ctx, r.id, "a", 50*time.Millisecond)
	if err != nil || !leads || first.Joined != 2 || first.Early != 0 || first.Overbook != 1200 || first.Rate != 100 ||
		first.Grace != time.Minute || first.Standing.State != Open || first.Drawn {
		t.Fatalf("%+v, %v, %v", first, leads, err)
	}
	for {
		_, leads, err := r.Lead(ctx, r.id, "b", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if leads {
			break
		}
		time.Sleep(time.Millisecond)
	}
	r.call(t, "a", &first, 1, 0) // he does not know that he leads no more
	second := r.lead(t, "b")
	r.call(t, "b", &second, 1, 1)
	if err := r.Reveal(ctx, r.id, seedOf(1)); err != nil || !r.lead(t, "b").Drawn {
		t.Errorf("the seed is not revealed: %v", err)
	}
}

// A call that is repeated, because its answer was lost, calls nobody.
func testCallingOnce(t *testing.T, url string) {
	r := newRig(t, url, past)
	r.join(t, 1, 2, 3)
	lead := r.lead(t, "a")
	r.call(t, "a", &lead, 2, 2)
	r.call(t, "a", &lead, 2, 0)
	if lead = r.lead(t, "a"); lead.Turns != 2 || lead.Front != 2 {
		t.Errorf("the leader sees %+v", lead)
	}
}

func testCallingNobody(t *testing.T, url string) {
	paused := usual
	paused.State = Paused
	for what, change := range map[string]func(r *rig){
		"before the start": func(r *rig) { r.startAt(t, future) },
		"before the draw":  func(r *rig) { r.startAt(t, future); r.join(t, 9); r.startAt(t, past) },
		"paused":           func(r *rig) { r.put(t, paused) },
	} {
		r := newRig(t, url, past)
		change(r)
		r.join(t, 1)
		lead := r.lead(t, "a")
		r.call(t, "a", &lead, 5, 0)
		if lead = r.lead(t, "a"); lead.Turns != 0 || lead.Front != 0 {
			t.Errorf("%s: the leader sees %+v", what, lead)
		}
	}
}

// Places that nobody has asked for, though they were watched, are passed over. What is known of it outlives a leader.
func testAbsentPlaces(t *testing.T, url string) {
	r := newRig(t, url, past)
	short := usual
	short.Grace = 200 * time.Millisecond
	r.put(t, short)
	r.join(t, 1, 2, 3, 4)
	lead := r.lead(t, "a")
	r.call(t, "a", &lead, 0, 0)
	time.Sleep(short.Grace + 50*time.Millisecond) // it is what is tested

	if err := r.rdb.HDel(t.Context(), keysOf(r.id).room, "leader").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Attend(t.Context(), r.id, []int64{1, 3}); err != nil {
		t.Fatal(err)
	}
	lead = r.lead(t, "b")
	r.call(t, "b", &lead, 2, 2)
	until := r.enter(t, Arrival{1, 0}, Arrival{2, 1}, Arrival{3, 2}, Arrival{4, 3})
	for i, end := range until {
		if entered := !end.IsZero(); entered != (i == 1 || i == 3) {
			t.Errorf("place %d has entered: %v", i, entered)
		}
	}
	if n, err := r.rdb.HLen(t.Context(), keysOf(r.id).seen).Result(); err != nil || n != 0 {
		t.Errorf("%d places are still kept as seen, %v", n, err)
	}
}

func testAttending(t *testing.T, url string) {
	r := newRig(t, url, future)
	r.join(t, 1, 2)
	p, err := r.Attend(t.Context(), r.id, nil)
	if err != nil || p.Joined != 2 || p.Early != -1 || p.Seed != nil || p.Commitment != r.c || p.Rate != 100 {
		t.Errorf("%+v, %v", p, err)
	}
	r.startAt(t, past)
	if err := r.Reveal(t.Context(), r.id, seedOf(1)); err != nil {
		t.Fatal(err)
	}
	p, err = r.Attend(t.Context(), r.id, nil)
	if err != nil || p.Early != 2 || p.Seed == nil || *p.Seed != seedOf(1) {
		t.Errorf("%+v, %v", p, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Attend(ctx, r.id, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

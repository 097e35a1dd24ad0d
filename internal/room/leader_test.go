package room

import (
	"errors"
	"slices"
	"testing"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/localstack/stacktest"
)

// sale is a product that is sold through a room, with a leader.
type sale struct {
	*rig
	Leader
	db *mysql.DB
}

func newSale(t *testing.T, units int64) *sale {
	t.Helper()
	db, err := mysql.Open(stacktest.AnyDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := ledger.New(db).AddProduct(t.Context(), order.Product{Name: "thing", Currency: "EUR", Stock: 100})
	if err != nil {
		t.Fatal(err)
	}

	rdb, err := redis.Open(stacktest.RedisURL(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	hall := NewHall(rdb)
	s := &sale{rig: &rig{Hall: hall, id: p.ID.Product()}, db: db}
	s.Leader = Leader{Name: "a", Hall: hall, Books: NewBooks(db), Stock: stock.New(rdb)}
	s.startAt(t, future)
	s.stock(t, units)
	s.set(t, func(set *Settings) { *set = usual; set.Rate = MaxRate })
	return s
}

// stock has Redis hold units that are available.
func (s *sale) stock(t *testing.T, units int64) {
	t.Helper()
	if err := s.rdb.Set(t.Context(), "stock:{"+s.id.String()+"}", units, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func (s *sale) set(t *testing.T, change func(*Settings)) Room {
	t.Helper()
	room, err := s.Books.Set(t.Context(), s.id, change)
	if err != nil {
		t.Fatal(err)
	}
	return room
}

// step has a leader do what there is to do, with the room as MySQL has it now.
func (s *sale) step(t *testing.T, l *Leader, want int) {
	t.Helper()
	rooms, err := s.Books.Live(t.Context())
	if err != nil || len(rooms) != 1 {
		t.Fatalf("rooms %+v, %v", rooms, err)
	}
	if called, err := l.Step(t.Context(), &rooms[0]); err != nil || called != want {
		t.Fatalf("%d are called, want %d (error %v)", called, want, err)
	}
}

// until steps until so many are called at once.
func (s *sale) until(t *testing.T, l *Leader, want int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		rooms, err := s.Books.Live(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		called, err := l.Step(t.Context(), &rooms[0])
		if err != nil {
			t.Fatal(err)
		}
		if called == want {
			return
		}
		if called != 0 {
			t.Fatalf("%d are called, want %d", called, want)
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("nobody is called for a minute, want %d", want)
}

func users(from, to order.UserID) (all []order.UserID) {
	for user := from; user <= to; user++ {
		all = append(all, user)
	}
	return all
}

// TestSale: as many are called as the stock reaches for, in the order of the draw, and others when turns end unused.
func TestSale(t *testing.T) {
	t.Parallel()
	s := newSale(t, 10)
	s.step(t, &s.Leader, 0) // gives Redis the room
	s.join(t, users(1, 30)...)
	s.step(t, &s.Leader, 0)
	if room, err := s.Books.Room(t.Context(), s.id); err != nil || room.Early != -1 || !room.Loaded {
		t.Errorf("before the start: %+v, %v", room, err)
	}
	if p, err := s.Attend(t.Context(), s.id, nil); err != nil || p.Seed != nil {
		t.Errorf("the seed is shown before the start, %v", err)
	}

	s.startAt(t, past)
	s.until(t, &s.Leader, 12)
	room, err := s.Books.Room(t.Context(), s.id)
	if err != nil || room.Early != 30 || room.Joined != 30 {
		t.Fatalf("after the start: %+v, %v", room, err)
	}
	p, err := s.Attend(t.Context(), s.id, nil)
	if err != nil || p.Seed == nil || p.Seed.Commitment() != p.Commitment || *p.Seed != room.Seed {
		t.Fatalf("after the start edges know %+v, %v", p, err)
	}

	// Those whose places were called enter, by whatever index.
	draw := NewDraw(*p.Seed, nil, uint64(p.Early))
	var entered []order.UserID
	for user := order.UserID(1); user <= 30; user++ {
		place := int64(draw.Place(uint64(user - 1)))
		if end := s.enter(t, Arrival{user, place})[0]; end.IsZero() == (place < 12) {
			t.Errorf("place %d may enter until %s", place, end)
		} else if !end.IsZero() {
			entered = append(entered, user)
		}
	}
	s.step(t, &s.Leader, 0) // all turns are out

	// Five order, and five units are left for the seven who are in.
	s.stock(t, 5)
	if err := s.Leave(t.Context(), s.id, entered[:5]); err != nil {
		t.Fatal(err)
	}
	s.step(t, &s.Leader, 0)
	// Units that come back let the next in.
	s.stock(t, 10)
	s.until(t, &s.Leader, 5)
	s.stock(t, 0)
	s.step(t, &s.Leader, 0)
}

// TestTwoLeaders: one calls at a time, and the other goes on where the first has stopped.
func TestTwoLeaders(t *testing.T) {
	t.Parallel()
	s := newSale(t, 5)
	s.startAt(t, past)
	s.step(t, &s.Leader, 0)
	s.join(t, users(1, 9)...)
	s.until(t, &s.Leader, 6)
	second := s.Leader
	second.Name, second.rooms = "b", nil
	s.stock(t, 8)
	s.step(t, &second, 0)
	if err := s.rdb.HSet(t.Context(), keysOf(s.id).room, "leads_until", 0).Err(); err != nil { // the first is dead
		t.Fatal(err)
	}
	s.until(t, &second, 3)
	s.step(t, &s.Leader, 0)
}

// TestRedisLosesARoom: the draw stands, no index is given twice, and who has a ticket has his place again.
func TestRedisLosesARoom(t *testing.T) {
	t.Parallel()
	s := newSale(t, 5)
	s.step(t, &s.Leader, 0)
	s.join(t, users(1, 9)...)
	s.startAt(t, past)
	s.until(t, &s.Leader, 6)
	if err := s.rdb.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	s.startAt(t, past)
	s.stock(t, 5)
	s.step(t, &s.Leader, 0)

	standing, indexes, err := s.Join(t.Context(), s.id, []Joiner{{3, 2, NoIndex}, {99, NoIndex, NoIndex}})
	if err != nil || !slices.Equal(indexes, []int64{2, 9 + lossGap}) || standing.Early != 9 {
		t.Errorf("indexes %v, %+v, %v", indexes, standing, err)
	}
	s.step(t, &s.Leader, 0) // the passes that are out are still good
	if p, err := s.Attend(t.Context(), s.id, nil); err != nil || p.Seed == nil || p.Early != 9 || p.Front != 6 {
		t.Errorf("edges know %+v, %v", p, err)
	}
	s.stock(t, 10)
	s.until(t, &s.Leader, 6)
}

func TestRate(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	of := &led{}
	for _, test := range []struct {
		after time.Duration
		take  float64
		want  int64
	}{
		{0, 0, 0}, {250 * time.Millisecond, 2, 2}, {250 * time.Millisecond, 2, 3}, {time.Hour, 10, 10},
		{50 * time.Millisecond, 0, 0}, {50 * time.Millisecond, 0, 1},
	} {
		now = now.Add(test.after)
		if got := of.allows(now, 10); got != test.want {
			t.Errorf("after %s: %d, want %d", test.after, got, test.want)
		}
		of.tokens -= test.take
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	s := newSale(t, 1)
	for what, change := range map[string]func(*Settings){
		"no state":       func(set *Settings) { set.State = "" },
		"no rate":        func(set *Settings) { set.Rate = 0 },
		"too many":       func(set *Settings) { set.Rate = MaxRate + 1 },
		"fewer turns":    func(set *Settings) { set.Overbook = 999 },
		"too many turns": func(set *Settings) { set.Overbook = MaxOverbook + 1 },
		"no grace":       func(set *Settings) { set.Grace = 0 },
		"a long pass":    func(set *Settings) { set.PassTTL = MaxWait + 1 },
	} {
		if _, err := s.Books.Set(t.Context(), s.id, change); mysql.Classify(err) != mysql.Own {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.Books.Set(t.Context(), 1<<40, func(*Settings) {}); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("unknown product: %v", err)
	}
	if _, err := s.Books.Room(t.Context(), 1<<40); !errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("no room: %v", err)
	}

	before, err := s.Books.Room(t.Context(), s.id)
	if err != nil {
		t.Fatal(err)
	}
	s.set(t, func(set *Settings) { set.State = Paused })
	s.set(t, func(set *Settings) { set.State = Closed })
	room, err := s.Books.Room(t.Context(), s.id)
	if err != nil || room.State != Closed || room.ClosedAt.IsZero() || room.Seed != before.Seed {
		t.Errorf("closed: %+v, %v", room, err)
	}
	if _, err := s.Books.Set(t.Context(), s.id, func(set *Settings) { set.State = Open }); !errors.Is(err, ErrClosed) {
		t.Errorf("it is opened again: %v", err)
	}
	if live, err := s.Books.Live(t.Context()); err != nil || len(live) != 1 || live[0].State != Closed {
		t.Errorf("a room that was just closed: %+v, %v", live, err)
	}
	if _, err := s.db.ExecContext(t.Context(), `UPDATE rooms SET closed_at = closed_at - INTERVAL 2 HOUR`); err != nil {
		t.Fatal(err)
	}
	if live, err := s.Books.Live(t.Context()); err != nil || len(live) > 0 {
		t.Errorf("live rooms %+v, %v", live, err)
	}
	var actions []string
	if err := s.db.SelectContext(t.Context(), &actions, `SELECT action FROM staff_log WHERE action LIKE 'room.%'
		ORDER BY id`); err != nil || !slices.Equal(actions, []string{actOpen, actChange, actChange}) {
		t.Errorf("the staff log has %v, %v", actions, err)
	}
}

package room

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/failpoint"
	"stampede/internal/order"
	"stampede/internal/redis"
	"stampede/internal/stock"
)

// MaxBatch is the most users or places of one call: a script must not hold up the other clients of Redis for long.
const MaxBatch = 500

// ErrNoRoom: Redis has no room of the product. There is none, or Redis has lost it.
var ErrNoRoom = errors.New("the product has no waiting room in Redis")

// State is how a room stands.
type State string

// The states of a room.
const (
	// Open: places are called.
	Open State = "open"
	// Paused: none is called, and who was called may enter.
	Paused State = "paused"
	// Closed: nobody joins or is called any more.
	Closed State = "closed"
)

var (
	joinScript   = redis.NewScript("join")
	attendScript = redis.NewScript("attend")
	enterScript  = redis.NewScript("enter")
	leadScript   = redis.NewScript("lead")
	callScript   = redis.NewScript("call")
)

// holderMark is before a user who has entered, in turns:{p}; lua/prelude.lua has the same letter.
const holderMark = "u"

// Hall is what Redis holds of rooms. It is safe for concurrent use.
type Hall struct{ rdb *redis.Client }

// NewHall makes a hall of a connection, which it does not close.
func NewHall(rdb *redis.Client) *Hall { return &Hall{rdb} }

// roomKeys are the keys of the room of one product.
type roomKeys struct {
	room   string // hash: state, counts, settings, who leads
	places string // hash: user id → index
	turns  string // sorted set: places that were called, and users who have entered → until when
	seen   string // hash: place of the window → when anybody asked for it last
	sale   string
}

func keysOf(id order.ProductID) roomKeys {
	tag := "{" + id.String() + "}"
	return roomKeys{
		room: "room:" + tag, places: "places:" + tag, turns: "turns:" + tag, seen: "seen:" + tag,
		sale: stock.SaleKey(id.Stock()),
	}
}

// Settings are what an operator sets of a room.
type Settings struct {
	State State
	// Rate is how many places are called in a second at most.
	Rate int64
	// Overbook is how many turns there are for each unit that is available, in thousandths.
	Overbook int64
	// Grace is how long who was called may take to enter, and who is absent is waited for.
	Grace time.Duration
	// PassTTL is how long a pass is good.
	PassTTL time.Duration
}

// Put makes the room of a product, or changes its settings. What is not there yet is made as MySQL has it. So many
// turns that Redis has lost count for as long as passes that are out may be good.
func (h *Hall) Put(ctx context.Context, r *Room, lost int64) error {
	key := keysOf(r.Product).room
	text, _ := r.Seed.Commitment().MarshalText()
	_, err := h.rdb.TxPipelined(ctx, func(p goredis.Pipeliner) error {
		p.HSetNX(ctx, key, "joined", r.Joined)
		p.HSetNX(ctx, key, "front", r.Front)
		if lost > 0 {
			p.HSet(ctx, key, "lost_turns", lost)
			p.HSet(ctx, key, "lost_until", time.Now().Add(r.Grace+r.PassTTL).UnixMilli())
		}
		if r.Early >= 0 {
			p.HSetNX(ctx, key, "early", r.Early)
		}
		return p.HSet(ctx, key, "state", string(r.State), "rate", r.Rate, "overbook", r.Overbook,
			"grace", r.Grace.Milliseconds(), "pass_ttl", r.PassTTL.Milliseconds(), "commitment", text).Err()
	})
	if err != nil {
		return fmt.Errorf("put the room of product %d: %w", r.Product, err)
	}
	return nil
}

// Reveal tells all edges the seed, once it is known how many take part in the draw.
func (h *Hall) Reveal(ctx context.Context, id order.ProductID, s Seed) error {
	text, _ := s.MarshalText()
	if err := h.rdb.HSet(ctx, keysOf(id).room, "seed", text).Err(); err != nil {
		return fmt.Errorf("reveal the seed of product %d: %w", id, err)
	}
	return nil
}

// Standing is how a room stands.
type Standing struct {
	// Now is the time by the clock of Redis, to the millisecond.
	Now   time.Time
	State State
	// Early is how many have joined before the start, or -1 before it.
	Early int64
	// Joined is how many have, and Front the place up to which all were called.
	Joined, Front int64
}

// Joiner is a user who joins, or asks for his place.
type Joiner struct {
	User order.UserID
	// Ticket is the index of his ticket, and Over the index whose turn is over, which he gives up; -1 is none.
	Ticket, Over int64
}

// NoIndex is the index of one who has none.
const NoIndex = -1

// Join gives up to MaxBatch users an index, or tells those that they have. It is NoIndex for one who has none in a room
// that is closed. Repeating a call changes nothing.
func (h *Hall) Join(ctx context.Context, id order.ProductID, joiners []Joiner) (Standing, []int64, error) {
	k := keysOf(id)
	args := make([]any, 0, 3*len(joiners))
	for _, j := range joiners {
		args = append(args, int64(j.User), indexText(j.Ticket), indexText(j.Over))
	}
	reply, err := h.rdb.Run(ctx, failpoint.Join, joinScript, []string{k.room, k.places, k.sale}, args...).Slice()
	if err != nil {
		return Standing{}, nil, fmt.Errorf("join the room of product %d: %w", id, err)
	}
	var r reader
	standing := r.standing(reply)
	indexes := r.ints(reply, standingFields)
	if r.Err == nil && len(indexes) != len(joiners) {
		r.Err = fmt.Errorf("%d indexes for %d users", len(indexes), len(joiners))
	}
	if r.Err != nil {
		return Standing{}, nil, fmt.Errorf("join the room of product %d: %w", id, r.Err)
	}
	return standing, indexes, nil
}

func indexText(index int64) string {
	if index < 0 {
		return ""
	}
	return strconv.FormatInt(index, 10)
}

// Public is what an edge knows of a room.
type Public struct {
	Standing
	Commitment Commitment
	// Seed is nil before the draw.
	Seed *Seed
	// Rate is how many places are called in a second at most.
	Rate int64
}

// Attend says which places of the window were asked for since the last call, up to MaxBatch, and tells how the room
// stands.
func (h *Hall) Attend(ctx context.Context, id order.ProductID, places []int64) (Public, error) {
	k := keysOf(id)
	reply, err := attendScript.Run(ctx, h.rdb, []string{k.room, k.seen, k.sale}, anys(places)...).Slice()
	if err != nil {
		return Public{}, fmt.Errorf("attend the room of product %d: %w", id, err)
	}
	var r reader
	p := Public{Standing: r.standing(reply)}
	if r.Err == nil {
		r.Check(p.Commitment.UnmarshalText([]byte(r.text(reply, standingFields))))
		if text := r.text(reply, standingFields+1); text != "" {
			p.Seed = new(Seed)
			r.Check(p.Seed.UnmarshalText([]byte(text)))
		}
		p.Rate = r.int(reply, standingFields+2)
	}
	if r.Err != nil {
		return Public{}, fmt.Errorf("attend the room of product %d: %w", id, r.Err)
	}
	return p, nil
}

// Arrival is a user whose place was called.
type Arrival struct {
	User  order.UserID
	Place int64
}

// Enter lets up to MaxBatch users in whose turn it is, and returns until when the pass of each is good; it is zero for
// one whose turn is over. Repeating a call tells the same.
func (h *Hall) Enter(ctx context.Context, id order.ProductID, arrivals []Arrival) (now time.Time, until []time.Time,
	err error) {
	k := keysOf(id)
	args := make([]any, 0, 2*len(arrivals))
	for _, a := range arrivals {
		args = append(args, int64(a.User), a.Place)
	}
	reply, err := h.rdb.Run(ctx, failpoint.Enter, enterScript, []string{k.room, k.turns}, args...).Slice()
	if err == nil && len(reply) != 1+len(arrivals) {
		err = fmt.Errorf("%d values for %d users", len(reply), len(arrivals))
	}
	if err != nil {
		return now, nil, fmt.Errorf("enter the room of product %d: %w", id, err)
	}
	var r reader
	times := r.ints(reply, 0)
	if r.Err != nil {
		return now, nil, fmt.Errorf("enter the room of product %d: %w", id, r.Err)
	}
	for _, ms := range times[1:] {
		end := time.Time{}
		if ms > 0 {
			end = time.UnixMilli(ms).UTC()
		}
		until = append(until, end)
	}
	return time.UnixMilli(times[0]).UTC(), until, nil
}

// Leave ends the turns of users who have ordered, so that others may enter for what is left.
func (h *Hall) Leave(ctx context.Context, id order.ProductID, users []order.UserID) error {
	members := make([]any, len(users))
	for i, user := range users {
		members[i] = holderMark + user.String()
	}
	if err := h.rdb.ZRem(ctx, keysOf(id).turns, members...).Err(); err != nil {
		return fmt.Errorf("end turns of product %d: %w", id, err)
	}
	return nil
}

// Lead is what the leader of a room decides by.
type Lead struct {
	Standing
	// Turns are out: places that were called and may yet enter, and passes.
	Turns int64
	// Drawn reports whether the edges know the seed.
	Drawn bool
	Settings

	seen  map[int64]time.Time
	marks []mark
}

// Lead makes a caller the leader of a room for a time, unless another one is: then leads is false. The error is
// ErrNoRoom if there is no room.
func (h *Hall) Lead(ctx context.Context, id order.ProductID, caller string, length time.Duration) (lead Lead,
	leads bool, err error) {
	k := keysOf(id)
	reply, err := leadScript.Run(ctx, h.rdb, []string{k.room, k.turns, k.seen, k.sale}, caller,
		length.Milliseconds()).Slice()
	if err == nil && len(reply) == 1 {
		return Lead{}, false, nil
	}
	const fields = standingFields + 6
	var r reader
	if err == nil {
		lead = Lead{
			Standing: r.standing(reply), Turns: r.int(reply, standingFields),
			Drawn: r.int(reply, standingFields+1) == 1, seen: map[int64]time.Time{},
		}
		lead.Settings = Settings{
			State: lead.Standing.State, Rate: r.int(reply, standingFields+2), Overbook: r.int(reply, standingFields+3),
			Grace: time.Duration(r.int(reply, standingFields+4)) * time.Millisecond,
		}
		lead.marks = r.marks(r.text(reply, standingFields+5))
		if seen := r.ints(reply, fields); r.Err == nil {
			for i := 0; i+1 < len(seen); i += 2 {
				lead.seen[seen[i]] = time.UnixMilli(seen[i+1])
			}
		}
		err = r.Err
	}
	if err != nil {
		return Lead{}, false, fmt.Errorf("lead the room of product %d: %w", id, err)
	}
	return lead, true, nil
}

// Plan is the places that are called next.
type Plan struct {
	places []int64
	front  int64 // up to which all have had their turn then
	marks  []mark
}

// Plan decides which places are called, as many as the budget allows. It is none if the room is not open, or nothing is
// drawn yet.
func (l *Lead) Plan(budget int64) Plan {
	v := view{
		now: l.Now, front: l.Front, joined: l.Joined, seen: l.seen, grace: l.Grace, marks: l.marks, budget: budget,
	}
	if l.Standing.State != Open || l.Early < 0 || l.Early > 0 && !l.Drawn {
		v.budget = 0
	}
	p := Plan{}
	p.places, p.front = v.call()
	p.marks = v.marked(p.front)
	return p
}

// Call calls the places of a plan, and returns how many. It calls none if somebody else leads by now.
func (h *Hall) Call(ctx context.Context, id order.ProductID, caller string, lead *Lead, p Plan) (int, error) {
	k := keysOf(id)
	args := append(make([]any, 0, 4+len(p.places)), caller, lead.Front, p.front, marksText(p.marks))
	called, err := h.rdb.Run(ctx, failpoint.Call, callScript, []string{k.room, k.turns, k.seen},
		append(args, anys(p.places)...)...).Int()
	if err != nil {
		return 0, fmt.Errorf("call places of product %d: %w", id, err)
	}
	return called * len(p.places), nil
}

func anys(numbers []int64) []any {
	args := make([]any, len(numbers))
	for i, n := range numbers {
		args[i] = n
	}
	return args
}

// marksText writes marks as 'below:since', since in ms, with a comma between two.
func marksText(marks []mark) string {
	var text []byte
	for _, m := range marks {
		if len(text) > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, m.below, 10)
		text = strconv.AppendInt(append(text, ':'), m.since.UnixMilli(), 10)
	}
	return string(text)
}

// standingFields is how many values of a reply are a Standing.
const standingFields = 5

// reader reads the values of a script's reply by their numbers. One that is not there is an error.
type reader struct{ redis.Decoder }

func (r *reader) standing(reply []any) Standing {
	if len(reply) < standingFields {
		r.Check(ErrNoRoom)
		return Standing{}
	}
	return Standing{
		Now: time.UnixMilli(r.int(reply, 0)).UTC(), State: State(r.text(reply, 1)), Early: r.int(reply, 2),
		Joined: r.int(reply, 3), Front: r.int(reply, 4),
	}
}

func (r *reader) text(reply []any, i int) string { return r.Text(at(reply, i)) }

func (r *reader) int(reply []any, i int) int64 { return r.Int(at(reply, i)) }

func at(reply []any, i int) any {
	if i < len(reply) {
		return reply[i]
	}
	return nil
}

func (r *reader) ints(reply []any, from int) []int64 {
	var numbers []int64
	for i := from; i < len(reply); i++ {
		numbers = append(numbers, r.int(reply, i))
	}
	return numbers
}

func (r *reader) marks(text string) (marks []mark) {
	if text == "" {
		return nil
	}
	for one := range strings.SplitSeq(text, ",") {
		below, since, _ := strings.Cut(one, ":")
		m, err := strconv.ParseInt(below, 10, 64)
		ms, err2 := strconv.ParseInt(since, 10, 64)
		r.Check(errors.Join(err, err2))
		marks = append(marks, mark{m, time.UnixMilli(ms)})
	}
	return marks
}

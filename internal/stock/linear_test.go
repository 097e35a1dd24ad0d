package stock

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

const (
	linearClients = 6
	linearCalls   = 120 // of each client
	// linearTimeout bounds the search for an order of the calls; it takes milliseconds if there is one.
	linearTimeout = 20 * time.Second
)

// unitsCall is a call to a product's stock, and unitsAnswer what came of it.
type unitsCall struct {
	kind  string // reserve, cancel, fail, hold, return, restock or level
	units int64
}

type unitsAnswer struct {
	done                bool
	available, reserved int64 // as far as the call tells
}

// unitsState is all that the calls of one product share.
type unitsState struct{ available, reserved int64 }

// unitsModel is the stock of one product as one person would keep it.
var unitsModel = porcupine.Model{
	Init: func() any { return unitsState{available: 10} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(unitsState), input.(unitsCall), output.(unitsAnswer)
		switch in.kind {
		case "reserve":
			if s.available < in.units {
				return !out.done && out.available == s.available, s
			}
			s.available -= in.units
			s.reserved += in.units
			return out.done && out.available == s.available, s
		case "cancel", "fail":
			s.available += in.units
			s.reserved -= in.units
			return out.done, s
		case "hold": // decided in the buyer's favour, and to be paid
			s.reserved -= in.units
			return out.done, s
		case "return": // not paid; a second time it is no change
			if out.done {
				s.available += in.units
			}
			return true, s
		case "restock":
			s.available += in.units
			return out.done, s
		}
		return out == unitsAnswer{true, s.available, s.reserved}, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// history has clients call a product at the same time, and writes down what each saw and when.
func history(t *testing.T, s *shop, seed uint64, reserve func(Request) (bool, int64, error)) []porcupine.Operation {
	t.Helper()
	var mu sync.Mutex
	var all []porcupine.Operation
	var restocks int64
	start := time.Now()
	record := func(client int, in unitsCall, call func() (unitsAnswer, error)) unitsAnswer {
		op := porcupine.Operation{ClientId: client, Input: in, Call: int64(time.Since(start))}
		out, err := call()
		op.Output, op.Return = out, int64(time.Since(start))
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, op)
		return out
	}
	var clients sync.WaitGroup
	for client := range linearClients {
		rng := rand.New(rand.NewPCG(seed, uint64(client)))
		clients.Go(func() {
			var mine []order.Order
			var held []order.Returned
			for range linearCalls {
				switch pick := rng.IntN(12); {
				case pick >= 11 && len(held) > 0:
					r := held[0]
					held = held[1:]
					for again := range 2 { // the second time its units are back already
						record(client, unitsCall{"return", r.Quantity}, s.tryReturn(t, r, again))
					}
				case pick >= 10 && len(mine) > 0:
					o := mine[0]
					mine = mine[1:]
					held = append(held, returnOf(o.ID, o.UserID, o.Quantity, s.product.Version+1, s.product.Version+2))
					record(client, unitsCall{"hold", o.Quantity}, s.tryHold(t, o))
				case pick < 5:
					r := ask(order.UserID(client+1), 1+rng.Int64N(3), "")
					call := func() (out unitsAnswer, err error) { out.done, out.available, err = reserve(r); return }
					out := record(client, unitsCall{"reserve", r.Quantity}, call)
					if out.done {
						mine = append(mine, order.Order{ID: r.OrderID, UserID: r.UserID, StockID: s.product.ID,
							Quantity: r.Quantity})
					}
				case pick < 7 && len(mine) > 0:
					o := mine[0]
					mine = mine[1:]
					record(client, unitsCall{"cancel", o.Quantity}, s.tryCancel(t, o))
				case pick < 8 && len(mine) > 0:
					o := mine[0]
					mine = mine[1:]
					record(client, unitsCall{"fail", o.Quantity}, s.tryFail(t, o))
				case pick < 9:
					mu.Lock()
					restocks++
					n := restocks
					mu.Unlock()
					record(client, unitsCall{"restock", 1}, func() (out unitsAnswer, err error) {
						out.done, err = s.Restock(t.Context(), s.product.ID, 1, s.product.Version+n, fmt.Sprint("r", n))
						return out, err
					})
				default:
					record(client, unitsCall{kind: "level"}, s.tryLevel(t))
				}
			}
		})
	}
	clients.Wait()
	return all
}

func (s *shop) tryCancel(t *testing.T, o order.Order) func() (unitsAnswer, error) {
	return func() (unitsAnswer, error) {
		done, err := s.Cancel(t.Context(), s.product.ID, []order.Order{o})
		return unitsAnswer{done: err == nil && done[0]}, err
	}
}

func (s *shop) tryFail(t *testing.T, o order.Order) func() (unitsAnswer, error) {
	return func() (unitsAnswer, error) {
		settled, err := s.Settle(t.Context(), s.product.ID, []order.Decision{fresh(o, order.Failed, s.product.Version)})
		return unitsAnswer{done: settled.GivenBack == o.Quantity}, err
	}
}

func (s *shop) tryLevel(t *testing.T) func() (unitsAnswer, error) {
	return func() (unitsAnswer, error) {
		level, err := s.Level(t.Context(), s.product.ID)
		return unitsAnswer{true, level.Available, level.Reserved}, err
	}
}

// tryReturn puts the units of an order on sale again that was held, or finds that they are.
func (s *shop) tryReturn(t *testing.T, r order.Returned, again int) func() (unitsAnswer, error) {
	return func() (unitsAnswer, error) {
		units, err := s.Return(t.Context(), s.product.ID, []order.Returned{r})
		if err == nil && units != r.Quantity*int64(1-again) {
			err = fmt.Errorf("try %d: %d units came back of %d", again, units, r.Quantity)
		}
		return unitsAnswer{done: units > 0}, err
	}
}

// tryHold settles an order that was decided in its buyer's favour, and is to be paid.
func (s *shop) tryHold(t *testing.T, o order.Order) func() (unitsAnswer, error) {
	return func() (unitsAnswer, error) {
		settled, err := s.Settle(t.Context(), s.product.ID, []order.Decision{fresh(o, order.Held, s.product.Version+1)})
		return unitsAnswer{done: err == nil && settled == Settled{}}, err
	}
}

// TestLinearizable shows that calls which overlap see the stock as if each was carried out at one moment between its
// beginning and its end.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	s := openShop(t, stacktest.RedisURL(t))
	s.load(t, nil)
	h := history(t, s, seed, func(r Request) (bool, int64, error) {
		sale, results, err := s.Reserve(t.Context(), s.product.ID, 0, []Request{r})
		return err == nil && results[0].Outcome == Reserved, sale.Available, err
	})
	if result := porcupine.CheckOperationsTimeout(unitsModel, h, linearTimeout); result != porcupine.Ok {
		t.Errorf("seed %d: the history of %d calls is %s", seed, len(h), result)
	}
}

// TestLinearizableFindsRace makes the same calls with a reserve that first looks and then takes: the check must notice.
func TestLinearizableFindsRace(t *testing.T) {
	t.Parallel()
	for range 20 { // the race may be missed once
		s := openShop(t, stacktest.RedisURL(t))
		s.load(t, nil)
		h := history(t, s, rand.Uint64(), func(r Request) (bool, int64, error) {
			available, err := s.rdb.Get(t.Context(), s.keys.stock).Int64()
			if err != nil || available < r.Quantity {
				return false, available, err
			}
			_, err = s.rdb.Pipelined(t.Context(), func(p goredis.Pipeliner) error {
				p.DecrBy(t.Context(), s.keys.stock, r.Quantity)
				p.HSet(t.Context(), s.keys.reserved, r.OrderID.String(), r.Quantity)
				p.HSet(t.Context(), s.keys.outbox, r.OrderID.String(),
					fmt.Sprintf("1 0 %d %d 1999 ", r.UserID, r.Quantity))
				return nil
			})
			return err == nil, available - r.Quantity, err
		})
		if porcupine.CheckOperationsTimeout(unitsModel, h, linearTimeout) == porcupine.Illegal {
			return
		}
	}
	t.Error("a reserve that is not atomic was not found out in 20 histories")
}

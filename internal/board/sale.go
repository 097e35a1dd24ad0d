package board

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/redis"
	"stampede/internal/stock"
)

const (
	// maxProducts is the most products that a board shows, the busiest ones.
	maxProducts = 20
	// chooseInterval is how often it is judged anew which those are.
	chooseInterval = 5 * time.Second
	// maxLooked bounds the products and buckets among which they are looked for.
	maxLooked = 2_000
	// maxProcesses bounds the processes that a board lists; it counts all.
	maxProcesses = 50
	// reportAge is the age from which on a process that has not reported is taken for gone.
	reportAge = 5 * time.Second
	// lookTimeout bounds each question to a server. A few come one after the other.
	lookTimeout = 700 * time.Millisecond
)

// update is what a board shows at a moment. What is not known is null.
type update struct {
	AtMS int64 `json:"at_ms"`
	// Silent are those of Redis, MySQL and "the queue" that have not answered.
	Silent []string `json:"silent"`

	Fleet    *fleet       `json:"fleet"`
	Queue    *queue.Depth `json:"queue"` // in messages
	Products []product    `json:"products"`
	// More tells that there are more products than those shown.
	More bool `json:"more"`

	Point point `json:"point"`
}

// point is what the charts show of an update: its time in milliseconds, orders accepted and decided per second, the
// latency in milliseconds, and the messages in the queue.
type point [5]*float64

// fleet is what the processes have reported.
type fleet struct {
	Edges   int `json:"edges"`
	Workers int `json:"workers"`
	Paused  int `json:"paused"` // workers

	PerSecond rates `json:"per_second"`
	Drift     drift `json:"drift"` // since the workers started

	// P50 and P99 are of the time in which an order was answered, in milliseconds.
	P50 *float64 `json:"p50_ms"`
	P99 *float64 `json:"p99_ms"`

	Processes []process `json:"processes"`
}

type process struct {
	Role      string  `json:"role"`
	ID        string  `json:"id"`
	Host      string  `json:"host"`
	StartedMS int64   `json:"started_at_ms"`
	Paused    bool    `json:"paused"`
	PerSecond float64 `json:"per_second"` // orders answered or decided
}

// product is one on sale. Orders counts reservations, the others units.
type product struct {
	ID        order.ProductID `json:"id"`
	Name      string          `json:"name"`
	State     string          `json:"state"`
	Available *int64          `json:"available"`
	Reserved  *int64          `json:"reserved"`
	Orders    *int64          `json:"orders"`
	Sold      *int64          `json:"sold"`
}

// sampler looks at the system for a board. It is used by one goroutine at a time.
type sampler struct {
	redis  *redis.Client
	stock  *stock.Stock
	ledger *ledger.Ledger
	queue  *queue.Queue

	chosen   []order.ProductID // ids of the products to show
	more     bool
	chosenAt time.Time
	sales    []ledger.Sale               // the last that MySQL said of them
	left     map[order.ProductID]int64   // units available by product, when they were chosen
	activity map[order.ProductID]float64 // by product
}

// look is an update of this moment.
func (s *sampler) look(ctx context.Context) update {
	u := update{AtMS: time.Now().UnixMilli(), Silent: []string{}, Products: []product{}}
	var silentRedis, silentMySQL, silentQueue error
	var looks sync.WaitGroup
	looks.Go(func() {
		reports, err := ask(ctx, func(ctx context.Context) ([]string, error) {
			return readReports(ctx, s.redis, reportAge)
		})
		if silentRedis = err; err == nil {
			u.Fleet = fleetOf(reports)
		}
	})
	looks.Go(func() {
		depth, err := ask(ctx, s.queue.Depth)
		if silentQueue = err; err == nil {
			u.Queue = &depth
		}
	})
	looks.Go(func() {
		if time.Since(s.chosenAt) >= chooseInterval {
			s.choose(ctx)
		}
		u.Products, silentMySQL = s.products(ctx)
		u.More = s.more
	})
	looks.Wait()
	for _, part := range []struct {
		name string
		err  error
	}{{"Redis", silentRedis}, {"MySQL", silentMySQL}, {"the queue", silentQueue}} {
		if part.err != nil && ctx.Err() == nil {
			u.Silent = append(u.Silent, part.name)
			slog.Debug("board: no answer", "from", part.name, "error", part.err)
		}
	}
	u.Point = u.point()
	return u
}

// ask bounds a question to a server.
func ask[T any](ctx context.Context, question func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	return question(ctx)
}

func (u update) point() point {
	at := float64(u.AtMS)
	p := point{0: &at}
	if u.Fleet != nil {
		decided := u.Fleet.PerSecond.Completed + u.Fleet.PerSecond.Failed
		p[1], p[2], p[3] = &u.Fleet.PerSecond.Accepted, &decided, u.Fleet.P99
	}
	if u.Queue != nil {
		messages := float64(u.Queue.Visible + u.Queue.InFlight + u.Queue.Delayed)
		p[4] = &messages
	}
	return p
}

// fleetOf sums up reports. One that cannot be read, as of a later version, is as good as none.
func fleetOf(texts []string) *fleet {
	f := &fleet{Processes: []process{}}
	var latency histogram
	for _, text := range texts {
		var r report
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			continue
		}
		one := process{Role: r.Role, ID: r.ID, Host: r.Host, StartedMS: r.StartedMS, Paused: r.Paused}
		orders := r.PerSecond
		switch r.Role {
		case "edge":
			f.Edges++
			one.PerSecond = orders.Accepted + orders.SoldOut + orders.Refused + orders.Errors
		case "worker":
			f.Workers++
			one.PerSecond = orders.Completed + orders.Failed
		}
		if r.Paused {
			f.Paused++
		}
		f.PerSecond = rates{
			Accepted: f.PerSecond.Accepted + orders.Accepted, SoldOut: f.PerSecond.SoldOut + orders.SoldOut,
			Refused: f.PerSecond.Refused + orders.Refused, Errors: f.PerSecond.Errors + orders.Errors,
			Completed: f.PerSecond.Completed + orders.Completed, Failed: f.PerSecond.Failed + orders.Failed,
		}
		f.Drift = drift{Found: f.Drift.Found + r.Drift.Found, Repaired: f.Drift.Repaired + r.Drift.Repaired}
		latency = latency.plus(r.Latency)
		f.Processes = append(f.Processes, one)
	}
	f.P50, f.P99 = millis(latency.quantile(.5)), millis(latency.quantile(.99))
	slices.SortFunc(f.Processes, func(a, b process) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.StartedMS, b.StartedMS), cmp.Compare(a.ID, b.ID))
	})
	f.Processes = f.Processes[:min(len(f.Processes), maxProcesses)]
	return f
}

func millis(seconds float64, known bool) *float64 {
	if !known {
		return nil
	}
	seconds *= 1000
	return &seconds
}

// choose picks the products to show: those of which most has moved lately, and then those that were added last. Where
// one of the two servers is silent, it goes by what the other says.
func (s *sampler) choose(ctx context.Context) {
	newest, errMySQL := ask(ctx, func(ctx context.Context) ([]order.ProductID, error) {
		return s.ledger.Newest(ctx, maxProducts)
	})
	loaded, errRedis := ask(ctx, s.stock.Products)
	var counts map[order.StockID]stock.Count
	if errRedis == nil {
		slices.SortFunc(loaded, func(a, b order.StockID) int { return cmp.Compare(b.Product(), a.Product()) })
		counts, errRedis = s.counts(ctx, loaded[:min(len(loaded), maxLooked)])
	}
	if errMySQL != nil && errRedis != nil {
		return
	}
	s.chosenAt = time.Now()
	left, activity := map[order.ProductID]int64{}, map[order.ProductID]float64{}
	for id, c := range counts {
		left[id.Product()] += c.Available
		activity[id.Product()] += float64(c.Reservations)
	}
	for id, units := range left {
		if before, ok := s.left[id]; ok {
			activity[id] += float64(max(units-before, before-units))
		}
		activity[id] += s.activity[id] / 2
	}
	s.left, s.activity = left, activity

	candidates := slices.Collect(maps.Keys(left))
	for _, id := range newest {
		if _, ok := left[id]; !ok {
			candidates = append(candidates, id)
		}
	}
	slices.SortFunc(candidates, func(a, b order.ProductID) int {
		return cmp.Or(cmp.Compare(activity[b], activity[a]), cmp.Compare(b, a))
	})
	s.more = len(candidates) > maxProducts || len(newest) == maxProducts || len(loaded) > maxLooked
	s.chosen = candidates[:min(len(candidates), maxProducts)]
}

// products reads those that were chosen, from MySQL first: an order takes its units out of Redis before it takes them
// out of MySQL, so that what Redis says next is never too much for it. The error says that MySQL is silent; that Redis
// is leaves units unknown.
func (s *sampler) products(ctx context.Context) ([]product, error) {
	sales, errMySQL := ask(ctx, func(ctx context.Context) ([]ledger.Sale, error) {
		return s.ledger.Sales(ctx, s.chosen)
	})
	if errMySQL == nil {
		s.sales = sales
	}
	var ids []order.StockID
	for _, sale := range s.sales {
		ids = slices.AppendSeq(ids, maps.Keys(sale.Parts))
	}
	counts, errRedis := s.counts(ctx, ids)
	products := make([]product, 0, len(s.sales))
	for _, sale := range s.sales {
		products = append(products, productOf(sale, counts, errMySQL == nil, errRedis == nil))
	}
	return products, errMySQL
}

func (s *sampler) counts(ctx context.Context, ids []order.StockID) (map[order.StockID]stock.Count, error) {
	return ask(ctx, func(ctx context.Context) (map[order.StockID]stock.Count, error) {
		return s.stock.Counts(ctx, ids)
	})
}

// productOf is a product by what MySQL and Redis say of it, as far as they do. What is reserved is what was taken out
// of Redis and not yet out of MySQL: to add up the reservations would take the longer the more there are.
func productOf(sale ledger.Sale, counts map[order.StockID]stock.Count, mysql, redis bool) product {
	var available, orders int64
	for id, units := range sale.Parts {
		c := counts[id]
		if orders += c.Reservations; c.Loaded {
			available += c.Available
		} else {
			available += units // all of it, as soon as somebody asks
		}
	}
	p := product{ID: sale.ID.Product(), Name: sale.Name, State: stateOf(sale.Product, time.Now())}
	if redis {
		p.Available, p.Orders = &available, &orders
	}
	if mysql {
		p.Sold = &sale.Sold
	}
	if reserved := max(0, sale.Stock-available); mysql && redis {
		p.Reserved = &reserved
	}
	if redis && available <= 0 && p.State == "on sale" {
		p.State = "sold out"
	}
	return p
}

func stateOf(p order.Product, now time.Time) string {
	switch {
	case p.State == order.OffSale:
		return "off sale"
	case !p.EndsAt.IsZero() && !now.Before(p.EndsAt):
		return "ended"
	case now.Before(p.StartsAt):
		return "not started"
	}
	return "on sale"
}

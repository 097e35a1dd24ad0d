package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	_ "github.com/go-sql-driver/mysql" // for sqlx
	"github.com/redis/go-redis/v9"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/token"
)

const (
	// benchUsers are so many that no user's orders are a burst.
	benchUsers = 20_000
	// benchTokenTTL is longer than any bench.
	benchTokenTTL = time.Hour
	// textbookQueue and its dead-letter queue are those of the textbook programs.
	textbookQueue = "textbook-orders"
	textbookDLQ   = "textbook-orders-dlq"
)

// bench is this build with the baselines beside it, maybe other sides, and what was found so far.
type bench struct {
	*side
	o    benchOptions
	show *progress

	soldOut        [][]byte // requests for a product without units
	noop, textbook string   // addresses
	bare           string   // that of an edge without telemetry, once there is one
	others         map[string]*side

	round  int // under way
	found  map[string][]float64
	failed map[string]error
	busy   map[string]string // who used the processors, by probe
	curves []curve
}

// startBench starts everything that is measured, but for workers, which start when there is work. Whatever it returns,
// close it.
func startBench(ctx context.Context, o benchOptions, show *progress) (*bench, error) {
	b := &bench{
		side: &side{}, o: o, show: show, others: map[string]*side{}, found: map[string][]float64{},
		failed: map[string]error{}, busy: map[string]string{},
	}
	var err error
	b.fleet, err = startFleet(ctx, o.dir, "bench", show.step,
		"./scripts/bench/noop", "./scripts/bench/textbook-edge", "./scripts/bench/textbook-worker",
		"./scripts/bench/local-sqs")
	if err != nil {
		return b, err
	}

	// The bench asks how fast it is; nobody is to be slowed down on purpose.
	b.env = append(b.env,
		"RATE_LIMIT_USER=off", "RATE_LIMIT_ADDRESS=off", "LOG_LEVEL=warn", "TEXTBOOK_QUEUE="+textbookQueue)

	b.withTextbook = true
	if err := b.open(ctx); err != nil {
		return b, err
	}
	if b.hot, err = b.addProduct(ctx, ledger.MaxStock); err != nil {
		return b, err
	}
	none, err := b.addProduct(ctx, 0)
	if err != nil {
		return b, err
	}

	for user := range benchUsers {
		access, err := b.tokens.Sign(token.Claims{UserID: order.UserID(user) + 1}, benchTokenTTL)
		if err != nil {
			return b, err
		}
		b.bearers = append(b.bearers, access)
	}

	b.orders, b.soldOut = b.requests(b.hot.ID), b.requests(none.ID)
	if err := b.reset(ctx); err != nil {
		return b, err
	}

	show.step("starting the edge and the baselines")
	if err := b.startEdge(ctx); err != nil {
		return b, err
	}

	if b.noop, err = b.startServer(ctx, "noop"); err != nil {
		return b, err
	}
	b.textbook, err = b.startServer(ctx, "textbook-edge")
	return b, err
}

// close stops everything. It may be called on whatever startBench returned.
func (b *bench) close(keep bool) error {
	var errs []error
	for _, s := range b.others {
		errs = append(errs, s.close(keep))
	}
	return errors.Join(append(errs, b.side.close(keep))...)
}

// startServer starts one of the baselines that listen, and returns its address.
func (b *bench) startServer(ctx context.Context, name string) (string, error) {
	addr, err := FreeAddr()
	if err != nil {
		return "", err
	}
	p, err := b.startProgram(name, "--addr", addr)
	if err != nil {
		return "", err
	}

	for end := time.Now().Add(StartWait); ; wait(ctx, pollStart) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			return addr, conn.Close()
		}
		select {
		case <-p.Done():
			return "", fmt.Errorf("%s ended at its start:\n%s", name, p.LogTail())
		default:
			if time.Now().After(end) || ctx.Err() != nil {
				return "", fmt.Errorf("%s does not listen: %w\n%s", name, err, p.LogTail())
			}
		}
	}
}

// startBare builds an edge without telemetry and starts it.
func (b *bench) startBare(ctx context.Context) error {
	const name = "edge-uninstrumented"
	if err := Build(ctx, "", "-tags", "uninstrumented", "-o", filepath.Join(b.bin, name), "./edge"); err != nil {
		return err
	}

	p, err := b.launch(ctx, "edge", name, name)
	if p != nil {
		b.note(name, p.Process)
		b.bare = p.Addr
	}
	return err
}

// sendTextbook puts messages of one order on the textbook's queue, and their reservations into Redis.
func (b *bench) sendTextbook(ctx context.Context, messages []queue.Outgoing) error {
	q, err := queue.Open(ctx, textbookQueue, textbookDLQ)
	if err != nil {
		return err
	}

	_, err = b.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, m := range messages {
			orders, err := order.Decode([]byte(m.Body))
			if err != nil {
				return err
			}
			p.HSet(ctx, "textbook:reserved", orders[0].ID.String(), 1)
		}
		return nil
	})
	if err != nil {
		return err
	}

	q.Send(ctx, messages, func(_ int, r queue.Result) {
		if r.Outcome != queue.Sent {
			err = errors.Join(err, r.Err)
		}
	})
	return err
}

// draw keeps a distribution of latencies for the report.
func (b *bench) draw(name string, sorted []time.Duration) {
	c := curve{Name: name, Round: b.round}
	for _, share := range []float64{0, .25, .5, .75, .9, .95, .98, .99, .995, .998, .999, .9995, .9998, .9999} {
		c.Points = append(c.Points, [2]float64{share, percentile(sorted, share)})
	}
	b.curves = append(b.curves, c)
}

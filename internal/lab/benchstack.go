package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	_ "github.com/go-sql-driver/mysql" // for sqlx
	"github.com/jmoiron/sqlx"
	"github.com/redis/go-redis/v9"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/token"
	"stampede/localstack"
)

const (
	// benchUsers are so many that no user's orders are a burst.
	benchUsers = 20_000
	// benchTokenTTL is longer than any bench.
	benchTokenTTL = time.Hour
	// textbookQueue and its dead-letter queue are those of the textbook programs.
	textbookQueue = "textbook-orders"
	textbookDLQ   = "textbook-orders-dlq"
	// clockTicks is how many times a second Linux counts a process's time on a processor (USER_HZ).
	clockTicks = 100
	// leastShare of the processors is worth a word.
	leastShare = 5
)

// bench is a fleet with the baselines beside it, and what was found so far.
type bench struct {
	*fleet
	o    benchOptions
	show *progress
	db   *sqlx.DB
	rdb  *redis.Client
	sqs  *awssqs.Client

	bearers              []string // tokens of users 1, 2, 3 and so on
	hot                  order.Product
	orders, soldOut      [][]byte // requests
	edge, noop, textbook string   // addresses
	bare                 string   // that of an edge without telemetry, once there is one

	mu      sync.Mutex            // guards what follows, since programs start while time is taken
	procs   []*localstack.Process // all that were started here, with names
	names   []string
	cleanup []func()

	current string // the probe under way, and its round
	round   int
	usedAt  time.Time // of the last mark
	used    map[string]time.Duration
	found   map[string][]float64
	failed  map[string]error
	busy    map[string]string // who used the processors, by probe
	curves  []curve
}

// startBench starts everything that is measured, but for workers, which start when there is work. Whatever it returns,
// close it.
func startBench(ctx context.Context, o benchOptions, show *progress) (*bench, error) {
	b := &bench{o: o, show: show, found: map[string][]float64{}, failed: map[string]error{}, busy: map[string]string{}}
	var err error
	b.fleet, err = startFleet(ctx, o.dir, "bench", show.step,
		"./scripts/bench/noop", "./scripts/bench/textbook-edge", "./scripts/bench/textbook-worker")
	if err != nil {
		return b, err
	}

	// The bench asks how fast it is; nobody is to be slowed down on purpose.
	b.env = append(b.env,
		"RATE_LIMIT_USER=off", "RATE_LIMIT_ADDRESS=off", "LOG_LEVEL=warn", "TEXTBOOK_QUEUE="+textbookQueue)

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
	if err := b.run(ctx, map[string]int{"edge": 1}); err != nil {
		return b, err
	}
	edge := b.running["edge"][0]
	b.edge = edge.Addr
	b.note("edge", edge.Process)

	if b.noop, err = b.startServer(ctx, "noop"); err != nil {
		return b, err
	}
	b.textbook, err = b.startServer(ctx, "textbook-edge")
	return b, err
}

// open connects the bench itself to the servers.
func (b *bench) open(ctx context.Context) error {
	options, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	if err != nil {
		return err
	}
	b.rdb = redis.NewClient(options)
	if b.db, err = sqlx.ConnectContext(ctx, "mysql", os.Getenv("MYSQL_DSN")); err != nil {
		return err
	}
	b.db.SetMaxIdleConns(insertConns)
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	b.sqs = awssqs.NewFromConfig(cfg)
	return nil
}

// close stops everything. It may be called on whatever startBench returned.
func (b *bench) close(keep bool) error {
	b.cleanUp()
	var errs []error
	if b.rdb != nil {
		errs = append(errs, b.rdb.Close())
	}
	if b.db != nil {
		errs = append(errs, b.db.Close())
	}
	for _, p := range b.procs {
		// The fleet's own that are still there it stops itself, in order.
		isOwn := func(own *Process) bool { return own.Process == p }
		if !slices.ContainsFunc(b.all(), isOwn) {
			errs = append(errs, p.Kill())
		}
	}
	return errors.Join(append(errs, b.fleet.close(keep))...)
}

// later has something done at the end of a probe, and in any case before the bench ends.
func (b *bench) later(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cleanup = append(b.cleanup, f)
}

func (b *bench) cleanUp() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range slices.Backward(b.cleanup) {
		f()
	}
	b.cleanup = nil
}

// note remembers a process by the name under which its use of the processors is shown.
func (b *bench) note(name string, p *localstack.Process) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.procs, b.names = append(b.procs, p), append(b.names, name)
}

// startProgram starts one of the baselines.
func (b *bench) startProgram(name string, args ...string) (*localstack.Process, error) {
	p, err := localstack.StartProcess(localstack.ProcessOptions{
		Name: name, Path: filepath.Join(b.bin, name), Args: args, Env: b.env,
		LogFile: filepath.Join(b.dir, name+".log"),
	})
	if err == nil {
		b.note(name, p)
	}
	return p, err
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

// startWorker starts a worker. Unless the process is nil the caller kills it, when it has nothing left to do.
func (b *bench) startWorker(ctx context.Context) (*Process, error) {
	p, err := b.launch(ctx, "worker", "worker", "worker")
	if p != nil {
		b.note("worker", p.Process)
	}
	return p, err
}

func (b *bench) addProduct(ctx context.Context, units int64) (order.Product, error) {
	return b.sale.Ledger.AddProduct(ctx, order.Product{Name: "Concert ticket", Price: 1999, Currency: "EUR",
		Stock: units})
}

// requests are orders of one unit by many users.
func (b *bench) requests(stockID order.StockID) [][]byte {
	body := fmt.Sprintf(`{"product_id":%d,"quantity":1}`, stockID)
	requests := make([][]byte, len(b.bearers))
	for i, access := range b.bearers {
		requests[i] = fmt.Appendf(nil, "POST /api/orders HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", access, len(body), body)
	}
	return requests
}

// load brings a product to Redis.
func (b *bench) load(ctx context.Context, stockID order.StockID) error {
	_, err := b.sale.Stock.Load(ctx, stockID, func(ctx context.Context) (order.Product, error) {
		return b.sale.Ledger.Product(ctx, stockID)
	})
	return err
}

// reset empties Redis and the queues, so that no measurement meets what is left of another.
func (b *bench) reset(ctx context.Context) error {
	if err := b.rdb.FlushAll(ctx).Err(); err != nil {
		return err
	}
	if err := b.rdb.Set(ctx, "textbook:stock", ledger.MaxStock, 0).Err(); err != nil {
		return err
	}
	// A purge is allowed once a minute only.
	for name, dlq := range map[string]string{localstack.QueueName: localstack.DLQName, textbookQueue: textbookDLQ} {
		if url, err := b.sqs.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &name}); err == nil {
			if _, err := b.sqs.DeleteQueue(ctx, &awssqs.DeleteQueueInput{QueueUrl: url.QueueUrl}); err != nil {
				return err
			}
		}
		if err := queue.Create(ctx, b.sqs, name, dlq); err != nil {
			return err
		}
	}
	runtime.GC() // of the messages that are gone, and not in the middle of what comes
	return nil
}

// truncate empties the tables that orders are written to, for what writes to them.
func (b *bench) truncate(ctx context.Context) error {
	for _, table := range []string{"orders", "stock_ledger"} {
		if _, err := b.db.ExecContext(ctx, "TRUNCATE TABLE "+table); err != nil {
			return err
		}
	}
	return nil
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

// redisBytes is how much memory Redis uses, but for the buffers of its clients, which come and go.
func (b *bench) redisBytes(ctx context.Context) (int64, error) {
	info, err := b.rdb.InfoMap(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	used, err := strconv.ParseInt(info["Memory"]["used_memory"], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("redis does not say how much memory it uses: %w", err)
	}
	clients, err := strconv.ParseInt(info["Memory"]["mem_clients_normal"], 10, 64)
	return used - clients, err
}

// draw keeps a distribution of latencies for the report.
func (b *bench) draw(name string, sorted []time.Duration) {
	c := curve{Name: name, Round: b.round}
	for _, share := range []float64{0, .25, .5, .75, .9, .95, .98, .99, .995, .998, .999, .9995, .9998, .9999} {
		c.Points = append(c.Points, [2]float64{share, percentile(sorted, share)})
	}
	b.curves = append(b.curves, c)
}

// mark is called at the begin and at the end of a measurement and notes who used the processors in between. Of a system
// that does not tell, nothing is noted.
func (b *bench) mark() {
	now, used := time.Now(), b.processors()
	if b.used == nil {
		b.used, b.usedAt = used, now
		return
	}

	all := now.Sub(b.usedAt) * time.Duration(runtime.NumCPU())
	for name := range used {
		used[name] -= b.used[name]
	}
	if len(used) > 0 {
		// Other programs, and what the host has taken from a virtual machine.
		used["others"] = all
		for name, d := range used {
			if name != "others" {
				used["others"] -= d
			}
		}
	}

	var shares []string
	most := func(a, b string) int { return cmp.Compare(used[b], used[a]) }
	for _, name := range slices.SortedFunc(maps.Keys(used), most) {
		if percent := 100 * float64(used[name]) / float64(all); percent >= leastShare {
			shares = append(shares, fmt.Sprintf("%s %.0f %%", name, percent))
		}
	}
	b.busy[b.current], b.used = strings.Join(shares, ", "), nil
}

// processors are the times for which processes, and nobody, have used the processors so far.
func (b *bench) processors() map[string]time.Duration {
	pids := map[string]int{
		"Redis": b.stack.Redis.Pid(), "MariaDB": b.stack.MariaDB.Pid(), "load and queue": os.Getpid(),
	}
	b.mu.Lock()
	for i, p := range b.procs {
		pids[b.names[i]] = p.Pid() // the last of a name is the one that runs
	}
	b.mu.Unlock()

	used := map[string]time.Duration{}
	for name, pid := range pids {
		if busy, _, err := usage(pid); err == nil {
			used[name] = busy
		}
	}

	if text, err := os.ReadFile("/proc/stat"); err == nil {
		var user, nice, system, idle, waits int64 // proc_stat(5)
		if _, err := fmt.Sscanf(string(text), "cpu %d %d %d %d %d", &user, &nice, &system, &idle, &waits); err == nil {
			used["idle"] = time.Duration(idle+waits) * time.Second / clockTicks
		}
	}
	return used
}

// usage is the time for which a process has used the processors, and the memory that it has in use (its resident set).
func usage(pid int) (busy time.Duration, bytes int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The name, in parentheses, may hold anything; fields are counted from behind it (proc_pid_stat(5)).
	end := strings.LastIndexByte(string(text), ')')
	fields := strings.Fields(string(text[end+1:]))
	const userTime, systemTime, resident = 14 - 3, 15 - 3, 24 - 3
	if end < 0 || len(fields) <= resident {
		return 0, 0, fmt.Errorf("the state of process %d cannot be read", pid)
	}
	var numbers [3]int64
	for i, field := range []int{userTime, systemTime, resident} {
		if numbers[i], err = strconv.ParseInt(fields[field], 10, 64); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(numbers[0]+numbers[1]) * time.Second / clockTicks, numbers[2] * int64(os.Getpagesize()), nil
}

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	gomysql "github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"github.com/redis/go-redis/v9"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/queue"
	stampederedis "stampede/internal/redis"
	"stampede/internal/stock"
	"stampede/localstack"
)

// side is one build on servers that it alone uses, with one edge; workers start when there is work. This build has one;
// another build, or this one on other servers, gets a side of its own to be held against it.
type side struct {
	*fleet
	db  *sqlx.DB
	rdb *redis.Client
	sqs *awssqs.Client
	// ctl is the other build's, which knows its database. It is empty for this build.
	ctl          string
	products     int64 // added by that ctl
	withTextbook bool  // the baselines have their state here, too

	bearers []string // tokens of users 1, 2, 3 and so on
	hot     order.Product
	orders  [][]byte // requests
	edge    string   // its address

	mu      sync.Mutex            // guards what follows, since programs start while time is taken
	procs   []*localstack.Process // all that were started here, with names
	names   []string
	cleanup []func()

	usedAt time.Time // of the last mark
	used   map[string]time.Duration
	bound  string // who used the processors between the last two marks
}

// sideOptions say what runs on a side.
type sideOptions struct {
	bin   string // the folder of its programs
	ctl   string // of another build
	stack localstack.Options
	env   []string // beside that of the bench and of the stack, and before it
}

// addSide starts an edge on servers of its own, under a name of this bench.
func (b *bench) addSide(ctx context.Context, name string, o sideOptions) (s *side, err error) {
	o.stack.Dir = filepath.Join(b.dir, name)
	s = &side{
		ctl: o.ctl, bearers: b.bearers,
		fleet: &fleet{dir: o.stack.Dir, bin: o.bin, running: map[string][]*Process{}},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(true)) // its logs are below those of the bench
		}
	}()

	if s.stack, err = localstack.Start(ctx, o.stack); err != nil {
		return nil, err
	}
	s.env = slices.Concat(b.env, s.stack.Env(), o.env)
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	if err := s.migrate(ctx); err != nil {
		return nil, err
	}
	if s.hot, err = s.addProduct(ctx, ledger.MaxStock); err != nil {
		return nil, err
	}
	s.orders = s.requests(s.hot.ID)
	if err := s.startEdge(ctx); err != nil {
		return nil, err
	}
	b.others[name] = s
	return s, nil
}

// migrate makes the tables as the build knows them.
func (s *side) migrate(ctx context.Context) (err error) {
	if s.ctl != "" {
		_, err = s.runCtl(ctx, "migrate")
		return err
	}
	if s.fleet.db, err = mysql.Open(s.stack.MariaDB.DSN(localstack.DatabaseName)); err != nil {
		return err
	}
	if s.fleet.redis, err = stampederedis.Open(s.stack.Redis.URL()); err != nil {
		return err
	}
	s.sale.Ledger, s.sale.Stock = ledger.New(s.fleet.db), stock.New(s.fleet.redis)
	_, err = s.fleet.db.Migrate(ctx)
	return err
}

// runCtl runs a command of the other build's ctl on its servers.
func (s *side) runCtl(ctx context.Context, arguments ...string) (out []byte, err error) {
	cmd := exec.CommandContext(ctx, s.ctl, arguments...)
	cmd.Env = s.env
	if out, err = cmd.Output(); err != nil {
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			out = failed.Stderr
		}
		return nil, fmt.Errorf("%s %s: %w\n%s", s.ctl, arguments[0], err, out)
	}
	return out, nil
}

// open connects the bench itself to the servers.
func (s *side) open(ctx context.Context) error {
	options, err := redis.ParseURL(s.stack.Redis.URL())
	if err != nil {
		return err
	}
	s.rdb = redis.NewClient(options)
	if s.db, err = sqlx.ConnectContext(ctx, "mysql", s.stack.MariaDB.DSN(localstack.DatabaseName)); err != nil {
		return err
	}
	s.db.SetMaxIdleConns(insertConns)
	s.sqs = localstack.SQSClient(s.stack.SQS.URL())
	return nil
}

// close stops everything. It may be called on a side of which only a part was started.
func (s *side) close(keep bool) error {
	s.cleanUp()
	var errs []error
	if s.rdb != nil {
		errs = append(errs, s.rdb.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	for _, p := range s.procs {
		// The fleet's own that are still there it stops itself, in order.
		isOwn := func(own *Process) bool { return own.Process == p }
		if !slices.ContainsFunc(s.all(), isOwn) {
			errs = append(errs, p.Kill())
		}
	}
	return errors.Join(append(errs, s.fleet.close(keep))...)
}

// later has something done at the end of a probe, and in any case before the bench ends.
func (s *side) later(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanup = append(s.cleanup, f)
}

func (s *side) cleanUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range slices.Backward(s.cleanup) {
		f()
	}
	s.cleanup = nil
}

// note remembers a process by the name under which its use of the processors is shown.
func (s *side) note(name string, p *localstack.Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs, s.names = append(s.procs, p), append(s.names, name)
}

// pid is the process of a name that was started last.
func (s *side) pid(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range slices.Backward(s.procs) {
		if s.names[i] == name {
			return p.Pid()
		}
	}
	return 0
}

// startProgram starts one of the baselines.
func (s *side) startProgram(name string, args ...string) (*localstack.Process, error) {
	p, err := localstack.StartProcess(localstack.ProcessOptions{
		Name: name, Path: filepath.Join(s.bin, name), Args: args, Env: s.env,
		LogFile: filepath.Join(s.dir, name+".log"),
	})
	if err == nil {
		s.note(name, p)
	}
	return p, err
}

// startEdge starts the one edge.
func (s *side) startEdge(ctx context.Context) error {
	err := s.run(ctx, map[string]int{"edge": 1})
	if err == nil {
		edge := s.running["edge"][0]
		s.edge = edge.Addr
		s.note("edge", edge.Process)
	}
	return err
}

// startWorker starts a worker. Unless the process is nil the caller kills it, when it has nothing left to do.
func (s *side) startWorker(ctx context.Context) (*Process, error) {
	p, err := s.launch(ctx, "worker", "worker", "worker")
	if p != nil {
		s.note("worker", p.Process)
	}
	return p, err
}

// addProduct puts a product on sale.
func (s *side) addProduct(ctx context.Context, units int64) (order.Product, error) {
	p := order.Product{Name: "Concert ticket", Price: 1999, Currency: "EUR", Stock: units}
	if s.ctl == "" {
		return s.sale.Ledger.AddProduct(ctx, p)
	}
	s.products++
	p.ID = order.StockID(s.products)
	_, err := s.runCtl(ctx, "product", "add", "--id", p.ID.String(), "--name", p.Name, "--price", "1999",
		"--stock", strconv.FormatInt(units, 10))
	return p, err
}

// requests are orders of one unit by many users.
func (s *side) requests(stockID order.StockID) [][]byte {
	return s.requestsOf(fmt.Sprintf(`{"product_id":%d,"quantity":1}`, stockID))
}

// requestsOf are orders with one body by many users.
func (s *side) requestsOf(body string) [][]byte {
	requests := make([][]byte, len(s.bearers))
	for i, access := range s.bearers {
		requests[i] = fmt.Appendf(nil, "POST /api/orders HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", access, len(body), body)
	}
	return requests
}

// load brings a product to Redis.
func (s *side) load(ctx context.Context, stockID order.StockID) error {
	_, err := s.sale.Stock.Load(ctx, stockID, func(ctx context.Context) (order.Product, error) {
		return s.sale.Ledger.Product(ctx, stockID)
	})
	return err
}

// reset empties Redis and the queues, so that no measurement meets what is left of another.
func (s *side) reset(ctx context.Context) error {
	if err := s.rdb.FlushAll(ctx).Err(); err != nil {
		return err
	}
	if err := s.rdb.Set(ctx, "textbook:stock", ledger.MaxStock, 0).Err(); err != nil {
		return err
	}
	// A purge is allowed once a minute only.
	for name, dlq := range map[string]string{localstack.QueueName: localstack.DLQName, textbookQueue: textbookDLQ} {
		if url, err := s.sqs.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &name}); err == nil {
			if _, err := s.sqs.DeleteQueue(ctx, &awssqs.DeleteQueueInput{QueueUrl: url.QueueUrl}); err != nil {
				return err
			}
		}
		if err := queue.Create(ctx, s.sqs, name, dlq); err != nil {
			return err
		}
	}
	runtime.GC() // of the messages that are gone, and not in the middle of what comes
	return nil
}

// historyTables are those that orders are written to when they are decided, of every build that can be measured: one
// that has not all of them has others.
var historyTables = []string{
	"orders", "stock_ledger", "order_keys", "bought", "books", "holds", "returned_units", "wallets", "wallet_ledger",
	"payments", "payment_events", "refunds",
}

// truncate empties the tables that orders are written to, for what writes to them.
func (s *side) truncate(ctx context.Context) error {
	const noSuchTable = 1146 // ER_NO_SUCH_TABLE
	for _, table := range historyTables {
		_, err := s.db.ExecContext(ctx, "TRUNCATE TABLE "+table)
		var refused *gomysql.MySQLError
		if err != nil && !(errors.As(err, &refused) && refused.Number == noSuchTable) {
			return err
		}
	}
	return nil
}

// redisTime is how long a Redis has used processors so far.
func redisTime(ctx context.Context, client *redis.Client) (total time.Duration, err error) {
	info, err := client.InfoMap(ctx, "cpu").Result()
	if err != nil {
		return 0, err
	}
	for _, field := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, err := strconv.ParseFloat(info["CPU"][field], 64)
		if err != nil {
			return 0, fmt.Errorf("the processor time of a Redis: %w", err)
		}
		total += time.Duration(seconds * float64(time.Second))
	}
	return total, nil
}

// redisBytes is how much memory Redis uses, but for the buffers of its clients, which come and go.
func (s *side) redisBytes(ctx context.Context) (int64, error) {
	info, err := s.rdb.InfoMap(ctx, "memory").Result()
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

// checkDecided makes sure that what was measured was the whole work: the orders are completed and settled.
func (s *side) checkDecided(ctx context.Context, stockID order.StockID, orders int64) error {
	completed, err := s.completed(ctx, stockID)
	if err != nil {
		return err
	}
	level, err := s.sale.Stock.Level(ctx, stockID)
	if err != nil {
		return err
	}
	if completed != orders || level.Reservations != 0 || level.Outbox != 0 {
		return fmt.Errorf("of %d orders %d are completed, %d still reserved and %d in the outbox",
			orders, completed, level.Reservations, level.Outbox)
	}
	return nil
}

// checkSold makes sure that all units of a product were sold, as far as the other build's own ctl says so: what it
// holds in Redis and MySQL it alone knows.
func (s *side) checkSold(ctx context.Context, stockID order.StockID) error {
	out, err := s.runCtl(ctx, "product", "list", "--json")
	if err != nil {
		return err
	}
	var products []struct {
		ID    order.StockID `json:"product_id"`
		Stock int64         `json:"stock"`
	}
	if err := json.Unmarshal(out, &products); err != nil {
		return err
	}
	for _, p := range products {
		if p.ID == stockID && p.Stock == 0 {
			return nil
		}
	}
	return fmt.Errorf("not all units of product %d are sold:\n%s", stockID, out)
}

// completed counts a product's completed orders, and those that are held.
func (s *side) completed(ctx context.Context, stockID order.StockID) (n int64, err error) {
	const query = `SELECT COUNT(*) FROM orders WHERE product_id = ? AND status IN ('completed', 'held')`
	return n, s.db.GetContext(ctx, &n, query, stockID)
}

// Textbook-worker is a baseline of ctl bench: a queue consumer as it is usually written. It receives up to ten messages
// of one order each, decides each order in a transaction of its own under SELECT ... FOR UPDATE, settles it in Redis
// and deletes its message. It writes no ledger and knows no limits, so that it does less than the worker for each
// order.
//
// It reads the environment of the worker. Its keys in Redis begin with textbook: and its queue is TEXTBOOK_QUEUE.
package main

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/go-sql-driver/mysql"
	"github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

const (
	// consumers work at a time: with a connection to MySQL each, more of them only wait for the same row.
	consumers = 16
	// maxMessages is the most that one receive may ask SQS for.
	maxMessages = 10
	// pollSeconds is SQS's longest wait for a message.
	pollSeconds = 20
	// retryPause is the wait after a call that failed; the message comes back by itself.
	retryPause = 100 * time.Millisecond
	// stateSeconds is how long the state of an order is kept for its buyer.
	stateSeconds = 86_400
	// duplicateKey is MySQL's error for a row that is there already.
	duplicateKey = 1062
)

// settle clears the reservation of a decided order and shows the decision to its buyer.
//
// KEYS 1 stock   2 reserved   3 state of the order   ARGV 1 order id   2 status   3 units to give back   4 seconds to
// keep
var settle = redis.NewScript(`
if redis.call('HDEL', KEYS[2], ARGV[1]) == 1 and ARGV[3] ~= '0' then
  redis.call('INCRBY', KEYS[1], ARGV[3])
end
redis.call('SET', KEYS[3], ARGV[2], 'EX', ARGV[4])
return 1
`)

type worker struct {
	db       *sql.DB
	redis    *redis.Client
	queue    *sqs.Client
	queueURL string
}

func main() {
	ctx := context.Background()
	options, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	check(err)
	dsn, err := mysql.ParseDSN(os.Getenv("MYSQL_DSN"))
	check(err)
	dsn.InterpolateParams = true // one round trip for each statement, as in the worker
	connector, err := mysql.NewConnector(dsn)
	check(err)
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = 2*consumers, 2*consumers
	})
	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client))
	check(err)
	w := &worker{db: sql.OpenDB(connector), redis: redis.NewClient(options), queue: sqs.NewFromConfig(cfg)}
	w.db.SetMaxOpenConns(consumers)
	w.db.SetMaxIdleConns(consumers)
	name := os.Getenv("TEXTBOOK_QUEUE")
	out, err := w.queue.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	check(err)
	w.queueURL = aws.ToString(out.QueueUrl)
	check(settle.Load(ctx, w.redis).Err())
	var all sync.WaitGroup
	for range consumers {
		all.Go(func() { w.consume(ctx) })
	}
	all.Wait()
}

func check(err error) {
	if err != nil {
		log.Fatal("textbook-worker: ", err)
	}
}

// consume works one message after the other.
func (w *worker) consume(ctx context.Context) {
	for {
		out, err := w.queue.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &w.queueURL, MaxNumberOfMessages: maxMessages, WaitTimeSeconds: pollSeconds,
		})
		if err != nil {
			log.Print(err)
			time.Sleep(retryPause)
			continue
		}
		for _, m := range out.Messages {
			if err := w.work(ctx, aws.ToString(m.Body), m.ReceiptHandle); err != nil {
				log.Print(err)
				time.Sleep(retryPause)
			}
		}
	}
}

func (w *worker) work(ctx context.Context, body string, receipt *string) error {
	orders, err := order.Decode([]byte(body))
	if err != nil {
		return err
	}
	for _, o := range orders {
		status, err := w.decide(ctx, o)
		if err != nil {
			return err
		}
		back := int64(0)
		if status == order.Failed {
			back = o.Quantity
		}
		keys := []string{"textbook:stock", "textbook:reserved", "textbook:order:" + o.ID.String()}
		err = settle.EvalSha(ctx, w.redis, keys, o.ID.String(), string(status), back, stateSeconds).Err()
		if err != nil {
			return err
		}
	}
	_, err = w.queue.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &w.queueURL, ReceiptHandle: receipt})
	return err
}

// decide is the transaction of one order. An order that has a row already keeps it.
func (w *worker) decide(ctx context.Context, o order.Order) (order.Status, error) {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = tx.Rollback() }()
	var stock int64
	var currency string
	row := tx.QueryRowContext(ctx, `SELECT stock, currency FROM products WHERE id = ? FOR UPDATE`, o.StockID)
	if err := row.Scan(&stock, &currency); err != nil {
		return "", err
	}
	status := order.Completed
	var reason *order.Reason
	if stock < o.Quantity {
		soldOut := order.SoldOut
		status, reason = order.Failed, &soldOut
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO orders (id, user_id, product_id, quantity, unit_price, currency, status,
		failed_reason, reserved_at, decided_at, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)`,
		o.ID[:], o.UserID, o.StockID, o.Quantity, o.UnitPrice, currency, status,
		reason, o.ReservedAt.UTC(), time.Now().UTC())
	var refused *mysql.MySQLError
	if errors.As(err, &refused) && refused.Number == duplicateKey {
		err = tx.QueryRowContext(ctx, `SELECT status FROM orders WHERE id = ?`, o.ID[:]).Scan(&status)
		return status, err
	}
	if err != nil {
		return "", err
	}
	if status == order.Completed {
		_, err = tx.ExecContext(ctx, `UPDATE products SET stock = stock - ? WHERE id = ?`, o.Quantity, o.StockID)
		if err != nil {
			return "", err
		}
	}
	return status, tx.Commit()
}

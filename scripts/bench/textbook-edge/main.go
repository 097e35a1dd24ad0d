// Textbook-edge is a baseline of ctl bench: flash-sale ordering as it is usually written. Each request is checked,
// makes one call of a script in Redis and one SendMessage, and is answered with 202. HTTP server, libraries, clients
// and the number of their connections are those of the edge, so that what differs is how they are used.
//
// It reads the environment of the edge. Its keys in Redis begin with textbook: and its queue is TEXTBOOK_QUEUE.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/golang-jwt/jwt/v5"
	"github.com/redis/go-redis/v9"
	"github.com/valyala/fasthttp"

	"stampede/internal/order"
)

const (
	// maxConns bounds the connections to Redis and to the queue, each: at least one for every connection of the bench,
	// so that no request waits for one.
	maxConns = 256
	// callTimeout bounds a call.
	callTimeout = 5 * time.Second
	// unitPrice is what everything costs.
	unitPrice = 1999
)

// reserve takes units out of the stock and notes for which order.
//
// KEYS 1 stock   2 reserved   ARGV 1 order id   2 quantity   Returns 1, or 0 if there are not so many units.
var reserve = redis.NewScript(`
local stock = tonumber(redis.call('GET', KEYS[1]) or '0')
local quantity = tonumber(ARGV[2])
if stock < quantity then
  return 0
end
redis.call('DECRBY', KEYS[1], quantity)
redis.call('HSET', KEYS[2], ARGV[1], quantity)
return 1
`)

type edge struct {
	secret   []byte
	redis    *redis.Client
	queue    *sqs.Client
	queueURL string
}

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	flag.Parse()
	ctx := context.Background()
	options, err := redis.ParseURL(os.Getenv("REDIS_URL"))
	check(err)
	options.PoolSize = maxConns
	client := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConns, t.MaxIdleConnsPerHost = maxConns, maxConns
	})
	cfg, err := config.LoadDefaultConfig(ctx, config.WithHTTPClient(client))
	check(err)
	e := &edge{
		secret: []byte(os.Getenv("JWT_SECRET")), redis: redis.NewClient(options), queue: sqs.NewFromConfig(cfg),
	}
	name := os.Getenv("TEXTBOOK_QUEUE")
	out, err := e.queue.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	check(err)
	e.queueURL = aws.ToString(out.QueueUrl)
	check(reserve.Load(ctx, e.redis).Err())
	check(fasthttp.ListenAndServe(*addr, e.postOrder))
}

func check(err error) {
	if err != nil {
		log.Fatal("textbook-edge: ", err)
	}
}

func (e *edge) postOrder(ctx *fasthttp.RequestCtx) {
	raw, _ := strings.CutPrefix(string(ctx.Request.Header.Peek("Authorization")), "Bearer ")
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(raw, &claims, func(*jwt.Token) (any, error) { return e.secret, nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithExpirationRequired())
	userID, err2 := strconv.ParseInt(claims.Subject, 10, 64)
	if errors.Join(err, err2) != nil {
		ctx.SetStatusCode(fasthttp.StatusUnauthorized)
		return
	}
	o := order.Order{ID: order.NewID(), UserID: order.UserID(userID), UnitPrice: unitPrice,
		ReservedAt: time.Now().UTC()}
	var body struct {
		ProductID int64 `json:"product_id"`
		Quantity  int64 `json:"quantity"`
	}
	if err := json.Unmarshal(ctx.PostBody(), &body); err != nil {
		ctx.SetStatusCode(fasthttp.StatusBadRequest)
		return
	}
	o.StockID, o.Quantity = order.StockID(body.ProductID), body.Quantity
	if err := o.Validate(); err != nil {
		ctx.SetStatusCode(fasthttp.StatusUnprocessableEntity)
		return
	}
	call, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	keys := []string{"textbook:stock", "textbook:reserved"}
	reserved, err := reserve.EvalSha(call, e.redis, keys, o.ID.String(), o.Quantity).Int()
	if err != nil {
		log.Print(err)
		ctx.SetStatusCode(fasthttp.StatusServiceUnavailable)
		return
	}
	if reserved == 0 {
		ctx.SetStatusCode(fasthttp.StatusConflict)
		return
	}
	bodies, _ := order.Pack([]order.Order{o})
	text := string(bodies[0])
	_, err = e.queue.SendMessage(call, &sqs.SendMessageInput{QueueUrl: &e.queueURL, MessageBody: &text})
	if err != nil {
		log.Print(err)
		ctx.SetStatusCode(fasthttp.StatusServiceUnavailable)
		return
	}
	answer, err := json.Marshal(map[string]any{"order_id": o.ID, "status": order.Pending})
	check(err)
	ctx.SetStatusCode(fasthttp.StatusAccepted)
	ctx.SetContentType("application/json")
	ctx.SetBody(answer)
}

package localstack

import (
	"database/sql"
	"encoding/json"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"testing"

	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/redis/go-redis/v9"

	"stampede/internal/queue"
	"stampede/localstack/sqs"
)

func startStack(t *testing.T, dir string) *Stack {
	t.Helper()
	s, err := Start(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// queueAttributes returns all attributes of a queue.
func queueAttributes(t *testing.T, client *awssqs.Client, name string) map[string]string {
	t.Helper()
	found, err := client.GetQueueUrl(t.Context(), &awssqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.GetQueueAttributes(t.Context(), &awssqs.GetQueueAttributesInput{
		QueueUrl:       found.QueueUrl,
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Attributes
}

// checkQueueAttributes compares with what the system is specified with, in figures of its own.
func checkQueueAttributes(t *testing.T, orders, dlq map[string]string) {
	t.Helper()
	for _, attributes := range []map[string]string{orders, dlq} {
		if got := attributes["VisibilityTimeout"]; got != "60" {
			t.Errorf("VisibilityTimeout %s", got)
		}
		if got := attributes["MessageRetentionPeriod"]; got != "1209600" {
			t.Errorf("MessageRetentionPeriod %s", got)
		}
	}
	var redrive struct {
		DeadLetterTargetArn string
		MaxReceiveCount     int
	}
	if err := json.Unmarshal([]byte(orders["RedrivePolicy"]), &redrive); err != nil {
		t.Fatalf("RedrivePolicy %q: %v", orders["RedrivePolicy"], err)
	}
	if redrive.MaxReceiveCount != 10 || redrive.DeadLetterTargetArn == "" ||
		redrive.DeadLetterTargetArn != dlq["QueueArn"] {
		t.Errorf("RedrivePolicy %+v; the dead-letter queue is %s", redrive, dlq["QueueArn"])
	}
	if policy := dlq["RedrivePolicy"]; policy != "" {
		t.Errorf("the dead-letter queue has a RedrivePolicy: %s", policy)
	}
}

func TestStack(t *testing.T) {
	t.Parallel()
	dir := longDir(t)
	s := startStack(t, dir)

	env := map[string]string{}
	var names []string
	for _, e := range s.Env() {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
		names = append(names, name)
	}
	sort.Strings(names)
	want := "AWS_ACCESS_KEY_ID AWS_ENDPOINT_URL_SQS AWS_REGION AWS_SECRET_ACCESS_KEY MYSQL_DSN MYSQL_LOCAL " +
		"ORDERS_DLQ ORDERS_QUEUE REDIS_URL"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("the environment holds %s\nwant %s", got, want)
	}

	o, err := redis.ParseURL(env["REDIS_URL"])
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(o)
	defer client.Close()
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("REDIS_URL: %v", err)
	}
	db, err := sql.Open("mysql", env["MYSQL_DSN"])
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var database, charset string
	if err := db.QueryRowContext(t.Context(), "SELECT DATABASE(), @@character_set_database").Scan(&database,
		&charset); err != nil {
		t.Errorf("MYSQL_DSN: %v", err)
	}
	if database != "stampede" || charset != "utf8mb4" {
		t.Errorf("MYSQL_DSN leads to database %q in %q", database, charset)
	}
	queues := SQSClient(env["AWS_ENDPOINT_URL_SQS"])
	if env["ORDERS_QUEUE"] != "orders" || env["ORDERS_DLQ"] != "orders-dlq" {
		t.Errorf("queues %s and %s", env["ORDERS_QUEUE"], env["ORDERS_DLQ"])
	}
	checkQueueAttributes(t, queueAttributes(t, queues, "orders"), queueAttributes(t, queues, "orders-dlq"))

	// A second stack in the same directory would share MariaDB's files.
	if _, err := Start(t.Context(), Options{Dir: dir}); err == nil ||
		!strings.Contains(err.Error(), "another local stack") {
		t.Errorf("a second stack in the same directory gives %v", err)
	}
	if err := client.Ping(t.Context()).Err(); err != nil {
		t.Errorf("the first stack after the attempt: %v", err)
	}

	if _, err := db.ExecContext(t.Context(), "CREATE TABLE kept (id INT PRIMARY KEY)"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range []int{s.Redis.Pid(), s.MariaDB.Pid()} {
		if runs(t, strconv.Itoa(pid)) {
			t.Errorf("process %d is left", pid)
		}
	}
	if resp, err := http.Get(env["AWS_ENDPOINT_URL_SQS"]); err == nil {
		resp.Body.Close()
		t.Error("SQS still answers")
	}
	checkNothingIsLeft(t, dir)

	s = startStack(t, dir)
	db, err = sql.Open("mysql", s.MariaDB.DSN(DatabaseName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "INSERT INTO kept VALUES (1)"); err != nil {
		t.Errorf("the data of the first stack: %v", err)
	}
}

// A stack that cannot be started leaves nothing running, and its directory can be used again.
func TestStackStartFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := Start(t.Context(), Options{Dir: dir, RedisArgs: []string{"--no-such-option", "1"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("starting a stack with a wrong option gives %v", err)
	}
	startStack(t, dir)
}

func TestStackFaults(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Options{Dir: t.TempDir(), SQSFaults: sqs.Faults{Refuse: 1}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	client := awssqs.New(SQSClient(s.SQS.URL()).Options(), func(o *awssqs.Options) { o.RetryMaxAttempts = 1 })
	name := QueueName
	if _, err := client.GetQueueUrl(t.Context(), &awssqs.GetQueueUrlInput{QueueName: &name}); err == nil {
		t.Error("the faults are not in effect")
	}
}

func TestCreateQueues(t *testing.T) {
	t.Parallel()
	server, err := sqs.Start(sqs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client := SQSClient(server.URL())

	// A queue that somebody made by hand, with other attributes and a message in it.
	name, body := "queue", "message"
	made, err := client.CreateQueue(t.Context(), &awssqs.CreateQueueInput{
		QueueName:  &name,
		Attributes: map[string]string{"VisibilityTimeout": "1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: made.QueueUrl,
		MessageBody: &body}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := queue.Create(t.Context(), client, name, "queue-dead"); err != nil {
			t.Fatal(err)
		}
		orders := queueAttributes(t, client, name)
		checkQueueAttributes(t, orders, queueAttributes(t, client, "queue-dead"))
		if n := orders["ApproximateNumberOfMessages"]; n != "1" {
			t.Errorf("the queue holds %s messages", n)
		}
	}
}

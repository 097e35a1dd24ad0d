package sqs_test

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"stampede/localstack/sqs"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait far more than they compute, so there may be more of them than processors. Fuzzing only computes.
	if flag.Lookup("test.fuzz").Value.String() == "" {
		if err := flag.Set("test.parallel", "64"); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("stampede/localstack.startLoop")) // which starts children
}

// newClient returns a client of the real SDK that keeps its connections and leaves none behind. attempts is how often
// it tries.
func newClient(t testing.TB, endpoint string, attempts int, options ...func(*config.LoadOptions) error) *awssqs.Client {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	options = append(options, config.WithRetryMaxAttempts(attempts))
	cfg, err := config.LoadDefaultConfig(t.Context(), options...)
	if err != nil {
		t.Fatal(err)
	}
	return awssqs.NewFromConfig(cfg, func(o *awssqs.Options) {
		o.BaseEndpoint, o.HTTPClient = &endpoint, &http.Client{Transport: transport}
	})
}

func localCredentials(o *config.LoadOptions) error {
	o.Region = "us-east-1"
	o.Credentials = credentials.NewStaticCredentialsProvider("id", "secret", "")
	return nil
}

func start(t testing.TB, opts sqs.Options) *sqs.Server {
	t.Helper()
	s, err := sqs.Start(opts)
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

// lab is one test's access to the queues. Its methods fail the test on any error.
type lab struct {
	*testing.T
	*awssqs.Client
	local bool // The endpoint is this package's own server.
}

// name makes a name that no other run uses.
func name(kind string) string { return "conformance-" + kind + "-" + uuid.NewString()[:13] }

func (l *lab) queue(attrs map[string]string) (url string) {
	l.Helper()
	out, err := l.CreateQueue(l.Context(), &awssqs.CreateQueueInput{QueueName: aws.String(name("q")),
		Attributes: attrs})
	l.must(err)
	l.deleteLater(out.QueueUrl)
	return *out.QueueUrl
}

func (l *lab) deleteLater(url *string) {
	l.Cleanup(func() {
		_, err := l.DeleteQueue(context.Background(), &awssqs.DeleteQueueInput{QueueUrl: url})
		if missing := (*types.QueueDoesNotExist)(nil); err != nil && !errors.As(err, &missing) && !l.local {
			l.Error(err) // A local server may have been closed, and its queues end with it.
		}
	})
}

func (l *lab) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) send(url, body string) (id string) {
	l.Helper()
	out, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
	l.must(err)
	return *out.MessageId
}

// receive waits up to wait seconds and fails unless it gets as many messages as wanted.
func (l *lab) receive(url string, want int, wait int32, changes ...func(*awssqs.ReceiveMessageInput)) []types.Message {
	l.Helper()
	in := &awssqs.ReceiveMessageInput{
		QueueUrl: &url, MaxNumberOfMessages: 10, WaitTimeSeconds: wait,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}, MessageAttributeNames: []string{"All"},
	}
	for _, change := range changes {
		change(in)
	}
	var got []types.Message
	for end := time.Now().Add(time.Duration(wait+1) * time.Second); len(got) < max(want, 1) && time.Now().Before(end); {
		out, err := l.ReceiveMessage(l.Context(), in)
		l.must(err)
		got = append(got, out.Messages...)
		if wait == 0 && want == 0 {
			break
		}
	}
	if len(got) != want {
		l.Fatalf("received %d messages, want %d", len(got), want)
	}
	return got
}

func visibleFor(seconds int32) func(*awssqs.ReceiveMessageInput) {
	return func(in *awssqs.ReceiveMessageInput) { in.VisibilityTimeout = seconds }
}

func (l *lab) remove(url string, m types.Message) {
	l.Helper()
	_, err := l.DeleteMessage(l.Context(), &awssqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
	l.must(err)
}

func (l *lab) change(url string, m types.Message, seconds int32) error {
	_, err := l.ChangeMessageVisibility(l.Context(), &awssqs.ChangeMessageVisibilityInput{
		QueueUrl: &url, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: seconds,
	})
	return err
}

func (l *lab) attributes(url string, names ...types.QueueAttributeName) map[string]string {
	l.Helper()
	if names == nil {
		names = []types.QueueAttributeName{"All"}
	}
	out, err := l.GetQueueAttributes(l.Context(), &awssqs.GetQueueAttributesInput{QueueUrl: &url,
		AttributeNames: names})
	l.must(err)
	return out.Attributes
}

func (l *lab) set(url, attr, value string) error {
	_, err := l.SetQueueAttributes(l.Context(), &awssqs.SetQueueAttributesInput{
		QueueUrl: &url, Attributes: map[string]string{attr: value},
	})
	return err
}

func (l *lab) arn(url string) string { return l.attributes(url, "QueueArn")["QueueArn"] }

// withDLQ makes a queue and its dead-letter queue. The receive count is in the form in which it is given.
func (l *lab) withDLQ(maxReceiveCount string) (url, dlq string) {
	l.Helper()
	dlq = l.queue(nil)
	policy := fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%s}`, l.arn(dlq), maxReceiveCount)
	return l.queue(map[string]string{"RedrivePolicy": policy}), dlq
}

// eventually asks again until the answer is yes, for the counts of SQS are approximate.
func (l *lab) eventually(what string, yes func() bool) {
	l.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if yes() {
			return
		}
	}
	l.Fatalf("not in time: %s", what)
}

// refused fails unless err is an error of type T whose code is, or ends in, the given one.
func refused[T error](t testing.TB, err error, code string) {
	t.Helper()
	var typed T
	var api smithy.APIError
	if !errors.As(err, &typed) || !errors.As(err, &api) {
		t.Fatalf("got %v, want a %T", err, typed)
	}
	if !strings.HasSuffix(api.ErrorCode(), code) {
		t.Fatalf("got code %q (%v), want %q", api.ErrorCode(), err, code)
	}
}

// generic is the error of codes that have no type of their own in the SDK.
type generic = *smithy.GenericAPIError

// TestConformance holds an endpoint to what SQS does: this package's server, or the one in SQS_CONFORMANCE_ENDPOINT
// with region and credentials from the environment. It makes queues with names of its own and deletes them.
func TestConformance(t *testing.T) {
	endpoint := os.Getenv("SQS_CONFORMANCE_ENDPOINT")
	local := endpoint == ""
	var options []func(*config.LoadOptions) error
	if local {
		endpoint = start(t, sqs.Options{}).URL()
		options = append(options, localCredentials)
	}
	client := newClient(t, endpoint, 1, options...)
	for name, test := range map[string]func(*lab){
		"CreateQueue":             testCreateQueue,
		"ListQueues":              testListQueues,
		"MissingQueue":            testMissingQueue,
		"Attributes":              testAttributes,
		"AttributesRefused":       testAttributesRefused,
		"SendRefused":             testSendRefused,
		"SendSizes":               testSendSizes,
		"Contents":                testContents,
		"Delay":                   testDelay,
		"MessageAttributes":       testMessageAttributes,
		"MessageAttributesFilter": testMessageAttributesFilter,
		"MessageAttributesRefuse": testMessageAttributesRefused,
		"SystemAttributes":        testSystemAttributes,
		"Batch":                   testBatch,
		"BatchRefused":            testBatchRefused,
		"ReceiveRefused":          testReceiveRefused,
		"LongPoll":                testLongPoll,
		"LongPollMany":            testLongPollMany,
		"Visibility":              testVisibility,
		"ChangeVisibility":        testChangeVisibility,
		"ReceiptHandles":          testReceiptHandles,
		"Redrive":                 testRedrive,
		"Counts":                  testCounts,
		"Purge":                   testPurge,
		"MoveToSource":            testMoveToSource,
		"MoveToDestination":       testMoveToDestination,
		"MoveCancel":              testMoveCancel,
		"MoveRefused":             testMoveRefused,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(&lab{t, client, local})
		})
	}
}

func testCreateQueue(l *lab) {
	n := aws.String(name("create"))
	in := &awssqs.CreateQueueInput{QueueName: n, Attributes: map[string]string{"VisibilityTimeout": "45"}}
	first, err := l.CreateQueue(l.Context(), in)
	l.must(err)
	l.deleteLater(first.QueueUrl)
	if !strings.HasSuffix(*first.QueueUrl, "/"+*n) {
		l.Errorf("URL is %s", *first.QueueUrl)
	}
	for _, again := range []map[string]string{{"VisibilityTimeout": "45"}, nil} {
		out, err := l.CreateQueue(l.Context(), &awssqs.CreateQueueInput{QueueName: n, Attributes: again})
		l.must(err)
		if *out.QueueUrl != *first.QueueUrl {
			l.Errorf("again: %s", *out.QueueUrl)
		}
	}
	in.Attributes["VisibilityTimeout"] = "46"
	_, err = l.CreateQueue(l.Context(), in)
	refused[*types.QueueNameExists](l, err, "QueueAlreadyExists")

	got, err := l.GetQueueUrl(l.Context(), &awssqs.GetQueueUrlInput{QueueName: n})
	l.must(err)
	if *got.QueueUrl != *first.QueueUrl {
		l.Errorf("GetQueueUrl: %s", *got.QueueUrl)
	}
	for _, bad := range []string{"a b", strings.Repeat("x", 81), "a.b", "ä"} {
		_, err = l.CreateQueue(l.Context(), &awssqs.CreateQueueInput{QueueName: &bad})
		refused[generic](l, err, "InvalidParameterValue")
	}
	if l.local {
		_, err = l.CreateQueue(l.Context(), &awssqs.CreateQueueInput{QueueName: aws.String("a.fifo"),
			Attributes: map[string]string{"FifoQueue": "true"}})
		refused[*types.UnsupportedOperation](l, err, "UnsupportedOperation")
		_, err = l.CreateQueue(l.Context(), &awssqs.CreateQueueInput{QueueName: aws.String("a"),
			Attributes: map[string]string{"FifoQueue": "true"}})
		refused[*types.UnsupportedOperation](l, err, "UnsupportedOperation")
		l.send("https://sqs.example.com/123/"+*n, "through another host name")
		l.receive(*first.QueueUrl, 1, 1)
	}
}

func testListQueues(l *lab) {
	prefix := name("list")
	var want []string
	for i := range 3 {
		out, err := l.CreateQueue(l.Context(), &awssqs.CreateQueueInput{QueueName: aws.String(prefix +
			strconv.Itoa(i))})
		l.must(err)
		l.deleteLater(out.QueueUrl)
		want = append(want, *out.QueueUrl)
	}
	l.eventually("all queues are listed", func() bool {
		out, err := l.ListQueues(l.Context(), &awssqs.ListQueuesInput{QueueNamePrefix: &prefix})
		l.must(err)
		slices.Sort(out.QueueUrls)
		return slices.Equal(out.QueueUrls, want) && out.NextToken == nil
	})
	var got []string
	pages := awssqs.NewListQueuesPaginator(l.Client, &awssqs.ListQueuesInput{QueueNamePrefix: &prefix,
		MaxResults: aws.Int32(2)})
	for pages.HasMorePages() {
		out, err := pages.NextPage(l.Context())
		l.must(err)
		if len(out.QueueUrls) > 2 {
			l.Errorf("page of %d", len(out.QueueUrls))
		}
		got = append(got, out.QueueUrls...)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		l.Errorf("pages hold %v", got)
	}
}

func testMissingQueue(l *lab) {
	url := l.queue(nil)
	_, err := l.DeleteQueue(l.Context(), &awssqs.DeleteQueueInput{QueueUrl: &url})
	l.must(err)
	var body, handle = aws.String("x"), aws.String("x")
	for what, call := range map[string]func() error{
		"GetQueueUrl": func() error {
			_, err := l.GetQueueUrl(l.Context(), &awssqs.GetQueueUrlInput{QueueName: aws.String(name("none"))})
			return err
		},
		"SendMessage": func() error {
			_, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: body})
			return err
		},
		"ReceiveMessage": func() error {
			_, err := l.ReceiveMessage(l.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url})
			return err
		},
		"DeleteMessage": func() error {
			_, err := l.DeleteMessage(l.Context(), &awssqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: handle})
			return err
		},
		"PurgeQueue": func() error {
			_, err := l.PurgeQueue(l.Context(), &awssqs.PurgeQueueInput{QueueUrl: &url})
			return err
		},
	} {
		l.Run(what, func(t *testing.T) {
			l := &lab{t, l.Client, l.local}
			l.eventually("the queue is gone", func() bool { return call() != nil })
			refused[*types.QueueDoesNotExist](l, call(), "NonExistentQueue")
		})
	}
}

func testAttributes(l *lab) {
	url := l.queue(map[string]string{"DelaySeconds": "0"})
	attrs := l.attributes(url)
	for name, want := range map[string]string{
		"VisibilityTimeout": "30", "MaximumMessageSize": "1048576", "MessageRetentionPeriod": "345600",
		"DelaySeconds":                  "0",
		"ReceiveMessageWaitTimeSeconds": "0", "ApproximateNumberOfMessages": "0",
		"ApproximateNumberOfMessagesNotVisible": "0", "ApproximateNumberOfMessagesDelayed": "0",
	} {
		if attrs[name] != want {
			l.Errorf("%s is %q, want %q", name, attrs[name], want)
		}
	}
	for _, name := range []string{"CreatedTimestamp", "LastModifiedTimestamp"} {
		if at, err := strconv.ParseInt(attrs[name], 10, 64); err != nil ||
			time.Since(time.Unix(at, 0)).Abs() > 5*time.Minute {
			l.Errorf("%s is %q", name, attrs[name])
		}
	}
	if !strings.HasPrefix(attrs["QueueArn"], "arn:aws") ||
		!strings.HasSuffix(attrs["QueueArn"], url[strings.LastIndex(url, "/")+1:]) {
		l.Errorf("QueueArn is %q", attrs["QueueArn"])
	}
	l.must(l.set(url, "VisibilityTimeout", "7"))
	l.eventually("the new timeout is shown", func() bool {
		one := l.attributes(url, "VisibilityTimeout", "Policy")
		return len(one) == 1 && one["VisibilityTimeout"] == "7"
	})
	if none, err := l.GetQueueAttributes(l.Context(), &awssqs.GetQueueAttributesInput{QueueUrl: &url}); err != nil ||
		len(none.Attributes) != 0 {
		l.Errorf("without names: %v, %v", none, err)
	}
}

func testAttributesRefused(l *lab) {
	url := l.queue(nil)
	for name, bad := range map[string][]string{
		"VisibilityTimeout": {"-1", "43201", "x", ""}, "DelaySeconds": {"901"},
		"MessageRetentionPeriod": {"59", "1209601"},
		"MaximumMessageSize":     {"1023", "1048577"}, "ReceiveMessageWaitTimeSeconds": {"21"},
	} {
		for _, value := range bad {
			refused[*types.InvalidAttributeValue](l, l.set(url, name, value), "InvalidAttributeValue")
		}
	}
	refused[*types.InvalidAttributeName](l, l.set(url, "NoSuchThing", "1"), "InvalidAttributeName")
	_, err := l.GetQueueAttributes(l.Context(), &awssqs.GetQueueAttributesInput{QueueUrl: &url,
		AttributeNames: []types.QueueAttributeName{"NoSuchThing"}})
	refused[*types.InvalidAttributeName](l, err, "InvalidAttributeName")
	arn := l.arn(url)
	for _, policy := range []string{
		"x", "{}", `{"maxReceiveCount":1}`,
		`{"deadLetterTargetArn":"` + arn + `"}`, `{"deadLetterTargetArn":"` + arn + `","maxReceiveCount":0}`,
		`{"deadLetterTargetArn":"` + arn + `","maxReceiveCount":1001}`, `{"deadLetterTargetArn":"` + arn +
			`-none","maxReceiveCount":5}`,
	} {
		refused[generic](l, l.set(url, "RedrivePolicy", policy), "InvalidParameterValue")
	}
}

func testSendRefused(l *lab) {
	url := l.queue(nil)
	for what, in := range map[string]*awssqs.SendMessageInput{
		"MissingParameter":      {MessageBody: aws.String("")},
		"InvalidParameterValue": {MessageBody: aws.String("x"), DelaySeconds: 901},
	} {
		in.QueueUrl = &url
		_, err := l.SendMessage(l.Context(), in)
		refused[generic](l, err, what)
	}
	for _, body := range []string{"\x00", "a\x08b", "\x1f", "\uFFFE", "\uFFFF"} {
		_, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
		refused[*types.InvalidMessageContents](l, err, "InvalidMessageContents")
	}
	l.receive(url, 0, 0)
}

func testSendSizes(l *lab) {
	url := l.queue(nil)
	body := strings.Repeat(`"`, 1<<20)
	l.send(url, body)
	if got := l.receive(url, 1, 5)[0]; *got.Body != body {
		l.Error("the largest message changed on its way")
	}
	attr := map[string]types.MessageAttributeValue{"n": {DataType: aws.String("String"), StringValue: aws.String("v")}}
	for _, in := range []*awssqs.SendMessageInput{
		{MessageBody: aws.String(body + "x")},
		{MessageBody: aws.String(body[8:] + "x"), MessageAttributes: attr},
	} {
		in.QueueUrl = &url
		_, err := l.SendMessage(l.Context(), in)
		refused[generic](l, err, "InvalidParameterValue")
	}
	small := l.queue(map[string]string{"MaximumMessageSize": "1024"})
	l.send(small, body[:1024])
	_, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &small,
		MessageBody: aws.String(body[:1025])})
	refused[generic](l, err, "InvalidParameterValue")
	out, err := l.SendMessageBatch(l.Context(), &awssqs.SendMessageBatchInput{QueueUrl: &small,
		Entries: []types.SendMessageBatchRequestEntry{
			{Id: aws.String("fits"), MessageBody: aws.String("x")},
			{Id: aws.String("long"), MessageBody: aws.String(body[:1025])},
		}})
	l.must(err)
	if len(out.Successful) != 1 || *out.Successful[0].Id != "fits" || len(out.Failed) != 1 ||
		*out.Failed[0].Id != "long" || !out.Failed[0].SenderFault {
		l.Errorf("got %+v", out)
	}
}

func testContents(l *lab) {
	url := l.queue(nil)
	for _, body := range []string{
		" ", "\t\n\r", `{"a":"b\\\"c"}`, "ä€😀\uFFFD\uE000\uD7FF", "\u2028\u2029", "</script>&<>",
		strings.Repeat("\\", 99), "\x7f",
	} {
		out, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: &body})
		l.must(err)
		sum := md5.Sum([]byte(body))
		got := l.receive(url, 1, 5)[0]
		if *got.Body != body || *got.MD5OfBody != hex.EncodeToString(sum[:]) ||
			*out.MD5OfMessageBody != *got.MD5OfBody || *got.MessageId != *out.MessageId {
			l.Errorf("sent %q %+v, got %q %s", body, out, *got.Body, *got.MD5OfBody)
		}
		l.remove(url, got)
	}
}

func testDelay(l *lab) {
	url := l.queue(map[string]string{"DelaySeconds": "2"})
	begin := time.Now()
	l.send(url, "queue")
	if n := l.attributes(url)["ApproximateNumberOfMessagesDelayed"]; l.local && n != "1" {
		l.Errorf("%s delayed", n)
	}
	_, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("own"),
		DelaySeconds: 1})
	l.must(err)
	l.receive(url, 0, 0)
	for i, want := range []string{"own", "queue"} {
		got := l.receive(url, 1, 5)[0]
		if earliest := time.Duration(i+1) * time.Second; *got.Body != want || time.Since(begin) < earliest {
			l.Errorf("%s came after %v", *got.Body, time.Since(begin))
		}
	}
}

func text(dataType, value string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: &dataType, StringValue: &value}
}

func bytesOf(dataType, value string) types.MessageAttributeValue {
	return types.MessageAttributeValue{DataType: &dataType, BinaryValue: []byte(value)}
}

// digest follows the developer guide apart from the server's own, so that one mistake in both is unlikely.
func digest(attrs map[string]types.MessageAttributeValue) string {
	h := md5.New()
	put := func(b []byte) {
		_ = binary.Write(h, binary.BigEndian, int32(len(b)))
		h.Write(b)
	}
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		a := attrs[name]
		put([]byte(name))
		put([]byte(*a.DataType))
		if a.StringValue != nil {
			h.Write([]byte{1})
			put([]byte(*a.StringValue))
		} else {
			h.Write([]byte{2})
			put(a.BinaryValue)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sameAttributes(a, b map[string]types.MessageAttributeValue) bool {
	return maps.EqualFunc(a, b, func(x, y types.MessageAttributeValue) bool {
		return *x.DataType == *y.DataType && aws.ToString(x.StringValue) == aws.ToString(y.StringValue) &&
			string(x.BinaryValue) == string(y.BinaryValue)
	})
}

func testMessageAttributes(l *lab) {
	url := l.queue(nil)
	attrs := map[string]types.MessageAttributeValue{
		"z": text("String", "ä \"quoted\"\n"), "a.b-c_1": text("Number", "-12.5e3"),
		"bin":    bytesOf("Binary", "\x00\xff\"\\"),
		"custom": text("String.json", "{}"), "n": text("Number.int", "7"), "png": bytesOf("Binary.png", "x"),
	}
	out, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x"),
		MessageAttributes: attrs})
	l.must(err)
	if *out.MD5OfMessageAttributes != digest(attrs) {
		l.Errorf("digest at send is %s, want %s", *out.MD5OfMessageAttributes, digest(attrs))
	}
	got := l.receive(url, 1, 5)[0]
	if !sameAttributes(got.MessageAttributes, attrs) || aws.ToString(got.MD5OfMessageAttributes) != digest(attrs) {
		l.Errorf("got %+v", got)
	}
}

func testMessageAttributesFilter(l *lab) {
	url := l.queue(nil)
	attrs := map[string]types.MessageAttributeValue{
		"trace.id": text("String", "1"), "trace.span": text("String", "2"), "other": text("String", "3"),
	}
	_, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x"),
		MessageAttributes: attrs})
	l.must(err)
	for _, test := range []struct{ ask, want []string }{
		{nil, nil},
		{[]string{"none"}, nil},
		{[]string{"other"}, []string{"other"}},
		{[]string{"trace.*"}, []string{"trace.id", "trace.span"}},
		{[]string{"trace.*", "other"}, []string{"other", "trace.id", "trace.span"}},
		{[]string{".*"}, []string{"other", "trace.id", "trace.span"}},
		{[]string{"All"}, []string{"other", "trace.id", "trace.span"}},
	} {
		got := l.receive(url, 1, 5, func(in *awssqs.ReceiveMessageInput) { in.MessageAttributeNames = test.ask })[0]
		want := map[string]types.MessageAttributeValue{}
		for _, name := range test.want {
			want[name] = attrs[name]
		}
		if !sameAttributes(got.MessageAttributes, want) {
			l.Errorf("%q: got %v", test.ask, slices.Sorted(maps.Keys(got.MessageAttributes)))
		}
		if len(want) > 0 != (got.MD5OfMessageAttributes != nil) || len(want) > 0 &&
			*got.MD5OfMessageAttributes != digest(want) {
			l.Errorf("%q: digest is %v", test.ask, aws.ToString(got.MD5OfMessageAttributes))
		}
		l.must(l.change(url, got, 0))
	}
}

func testMessageAttributesRefused(l *lab) {
	url := l.queue(nil)
	many := map[string]types.MessageAttributeValue{}
	for i := range 11 {
		many["a"+strconv.Itoa(i)] = text("String", "x")
	}
	for what, attrs := range map[string]map[string]types.MessageAttributeValue{
		"too many":           many,
		"empty value":        {"a": text("String", "")},
		"unknown type":       {"a": text("Text", "x")},
		"no number":          {"a": text("Number", "x")},
		"hexadecimal":        {"a": text("Number", "0x10")},
		"binary as string":   {"a": text("Binary", "x")},
		"string as binary":   {"a": bytesOf("String", "x")},
		"reserved name":      {"aWS.x": text("String", "x")},
		"dot first":          {".a": text("String", "x")},
		"dot last":           {"a.": text("String", "x")},
		"two dots":           {"a..b": text("String", "x")},
		"character in name":  {"a b": text("String", "x")},
		"name is too long":   {strings.Repeat("a", 257): text("String", "x")},
		"control characters": {"a": text("String", "\x01")},
	} {
		_, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x"),
			MessageAttributes: attrs})
		var api smithy.APIError
		if !errors.As(err, &api) || api.ErrorFault() == smithy.FaultServer {
			l.Errorf("%s: %v", what, err)
		}
	}
	l.receive(url, 0, 0)
}

func testSystemAttributes(l *lab) {
	url := l.queue(nil)
	before := time.Now().Add(-time.Minute)
	out, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{
		QueueUrl: &url, MessageBody: aws.String("x"), MessageGroupId: aws.String("a-group"), // of a fair queue
		MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{
			"AWSTraceHeader": {DataType: aws.String("String"),
				StringValue: aws.String("Root=1-5759e988-bd862e3fe1be46a994272793")},
		},
	})
	l.must(err)
	if out.MD5OfMessageSystemAttributes == nil {
		l.Error("no digest of the system attributes")
	}
	var first string
	for count := 1; count <= 3; count++ {
		got := l.receive(url, 1, 5)[0]
		attrs := got.Attributes
		if first == "" {
			first = attrs["ApproximateFirstReceiveTimestamp"]
		}
		if attrs["ApproximateReceiveCount"] != strconv.Itoa(count) ||
			attrs["ApproximateFirstReceiveTimestamp"] != first ||
			attrs["SenderId"] == "" || attrs["MessageGroupId"] != "a-group" ||
			attrs["AWSTraceHeader"] != "Root=1-5759e988-bd862e3fe1be46a994272793" {
			l.Errorf("receive %d: %v", count, attrs)
		}
		sent, _ := strconv.ParseInt(attrs["SentTimestamp"], 10, 64)
		received, _ := strconv.ParseInt(first, 10, 64)
		if time.UnixMilli(sent).Before(before) || received < sent {
			l.Errorf("sent at %d, first received at %d", sent, received)
		}
		l.must(l.change(url, got, 0))
	}
	for _, group := range []string{"", "a group", strings.Repeat("x", 129), "ü"} {
		_, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x"),
			MessageGroupId: &group})
		refused[generic](l, err, "InvalidParameterValue")
	}
	for _, ask := range []func(*awssqs.ReceiveMessageInput){
		func(in *awssqs.ReceiveMessageInput) {
			in.MessageSystemAttributeNames = []types.MessageSystemAttributeName{"SentTimestamp"}
		},
		func(in *awssqs.ReceiveMessageInput) {
			in.MessageSystemAttributeNames, in.AttributeNames = nil, []types.QueueAttributeName{"SentTimestamp"} //lint:ignore SA1019 Older clients ask this way.
		},
	} {
		got := l.receive(url, 1, 5, ask)[0]
		if len(got.Attributes) != 1 || got.Attributes["SentTimestamp"] == "" {
			l.Errorf("asked for one, got %v", got.Attributes)
		}
		l.must(l.change(url, got, 0))
	}
	none := l.receive(url, 1, 5, func(in *awssqs.ReceiveMessageInput) { in.MessageSystemAttributeNames = nil })[0]
	if len(none.Attributes) != 0 {
		l.Errorf("asked for none, got %v", none.Attributes)
	}
}

func testBatch(l *lab) {
	url := l.queue(nil)
	var send []types.SendMessageBatchRequestEntry
	for i := range 10 {
		send = append(send, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(i)),
			MessageBody: aws.String("body " + strconv.Itoa(i))})
	}
	send[3].MessageBody = aws.String("\x01")
	send[5].DelaySeconds = 901
	sent, err := l.SendMessageBatch(l.Context(), &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: send})
	l.must(err)
	failed := map[string]string{}
	for _, f := range sent.Failed {
		failed[*f.Id] = *f.Code
		if !f.SenderFault {
			l.Errorf("%s failed by the server's fault", *f.Id)
		}
	}
	if len(sent.Successful) != 8 || len(failed) != 2 || failed["3"] != "InvalidMessageContents" ||
		failed["5"] != "InvalidParameterValue" {
		l.Errorf("sent %d, failed %v", len(sent.Successful), failed)
	}
	ids := map[string]string{}
	for _, s := range sent.Successful {
		ids[*s.MessageId] = "body " + *s.Id
	}
	messages := l.receive(url, 8, 5)
	var change []types.ChangeMessageVisibilityBatchRequestEntry
	var remove []types.DeleteMessageBatchRequestEntry
	for i, m := range messages {
		if ids[*m.MessageId] != *m.Body {
			l.Errorf("message %s has body %q, want %q", *m.MessageId, *m.Body, ids[*m.MessageId])
		}
		id := aws.String(strconv.Itoa(i))
		change = append(change, types.ChangeMessageVisibilityBatchRequestEntry{Id: id, ReceiptHandle: m.ReceiptHandle,
			VisibilityTimeout: 100})
		remove = append(remove, types.DeleteMessageBatchRequestEntry{Id: id, ReceiptHandle: m.ReceiptHandle})
	}
	change[0].VisibilityTimeout = 43201
	change[1].ReceiptHandle = aws.String("nonsense")
	changed, err := l.ChangeMessageVisibilityBatch(l.Context(),
		&awssqs.ChangeMessageVisibilityBatchInput{QueueUrl: &url, Entries: change})
	l.must(err)
	codes := map[string]string{}
	for _, f := range changed.Failed {
		codes[*f.Id] = *f.Code
	}
	if len(changed.Successful) != 6 || codes["0"] != "InvalidParameterValue" || codes["1"] != "ReceiptHandleIsInvalid" {
		l.Errorf("changed %d, failed %v", len(changed.Successful), codes)
	}
	remove[7].ReceiptHandle = aws.String("nonsense")
	for range 2 { // A second time succeeds as well.
		removed, err := l.DeleteMessageBatch(l.Context(),
			&awssqs.DeleteMessageBatchInput{QueueUrl: &url, Entries: remove})
		l.must(err)
		if len(removed.Successful) != 7 || len(removed.Failed) != 1 || *removed.Failed[0].Id != "7" ||
			*removed.Failed[0].Code != "ReceiptHandleIsInvalid" {
			l.Errorf("removed %+v", removed)
		}
	}
	l.eventually("one message is left", func() bool {
		a := l.attributes(url)
		return a["ApproximateNumberOfMessagesNotVisible"] == "1" && a["ApproximateNumberOfMessages"] == "0"
	})
}

func testBatchRefused(l *lab) {
	url := l.queue(nil)
	batch := func(n int, body string, id func(int) string) error {
		in := &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: []types.SendMessageBatchRequestEntry{}}
		for i := range n {
			in.Entries = append(in.Entries, types.SendMessageBatchRequestEntry{Id: aws.String(id(i)),
				MessageBody: &body})
		}
		_, err := l.SendMessageBatch(l.Context(), in)
		return err
	}
	refused[*types.EmptyBatchRequest](l, batch(0, "x", strconv.Itoa), "EmptyBatchRequest")
	refused[*types.TooManyEntriesInBatchRequest](l, batch(11, "x", strconv.Itoa), "TooManyEntriesInBatchRequest")
	refused[*types.TooManyEntriesInBatchRequest](l, batch(40, "x", strconv.Itoa), "TooManyEntriesInBatchRequest")
	refused[*types.BatchEntryIdsNotDistinct](l, batch(2, "x", func(int) string {
		return "a"
	}), "BatchEntryIdsNotDistinct")
	refused[*types.BatchRequestTooLong](l, batch(10, strings.Repeat("x", 104858), strconv.Itoa), "BatchRequestTooLong")
	for _, id := range []string{"a b", "ä", strings.Repeat("x", 81)} {
		refused[*types.InvalidBatchEntryId](l, batch(1, "x", func(int) string { return id }), "InvalidBatchEntryId")
	}
	l.receive(url, 0, 0)
	l.must(batch(10, strings.Repeat("x", 104857), strconv.Itoa))
	_, err := l.DeleteMessageBatch(l.Context(), &awssqs.DeleteMessageBatchInput{QueueUrl: &url,
		Entries: []types.DeleteMessageBatchRequestEntry{}})
	refused[*types.EmptyBatchRequest](l, err, "EmptyBatchRequest")
}

func testReceiveRefused(l *lab) {
	url := l.queue(nil)
	for _, in := range []*awssqs.ReceiveMessageInput{
		{MaxNumberOfMessages: 11}, {MaxNumberOfMessages: -1}, {WaitTimeSeconds: 21}, {WaitTimeSeconds: -1},
		{VisibilityTimeout: 43201}, {VisibilityTimeout: -1},
	} {
		in.QueueUrl = &url
		_, err := l.ReceiveMessage(l.Context(), in)
		refused[generic](l, err, "InvalidParameterValue")
	}
	_, err := l.ReceiveMessage(l.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url,
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"NoSuchThing"}})
	if l.local {
		refused[*types.InvalidAttributeName](l, err, "InvalidAttributeName")
	} else if err == nil {
		l.Error("an unknown name was accepted")
	}
}

// testLongPoll checks what a waiting receive wakes for. Each case has the time at which the message becomes available,
// and far more time than that to wait.
func testLongPoll(l *lab) {
	for what, test := range map[string]struct {
		prepare func(l *lab, url string) types.Message
		act     func(l *lab, url string, m types.Message)
	}{
		"send": {act: func(l *lab, url string, _ types.Message) { l.send(url, "x") }},
		"delay ends": {act: func(l *lab, url string, _ types.Message) {
			_, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x"),
				DelaySeconds: 1})
			l.must(err)
		}},
		"timeout ends": {prepare: func(l *lab, url string) types.Message {
			l.send(url, "x")
			return l.receive(url, 1, 5, visibleFor(1))[0]
		}},
		"given back": {
			prepare: func(l *lab, url string) types.Message {
				l.send(url, "x")
				return l.receive(url, 1, 5, visibleFor(100))[0]
			},
			act: func(l *lab, url string, m types.Message) { l.must(l.change(url, m, 0)) },
		},
		"timeout made shorter": {
			prepare: func(l *lab, url string) types.Message {
				l.send(url, "x")
				return l.receive(url, 1, 5, visibleFor(100))[0]
			},
			act: func(l *lab, url string, m types.Message) { l.must(l.change(url, m, 1)) },
		},
	} {
		l.Run(what, func(t *testing.T) {
			t.Parallel()
			l := &lab{t, l.Client, l.local}
			url := l.queue(map[string]string{"ReceiveMessageWaitTimeSeconds": "20"})
			var m types.Message
			if test.prepare != nil {
				m = test.prepare(l, url)
			}
			type result struct {
				out *awssqs.ReceiveMessageOutput
				err error
			}
			done := make(chan result, 1)
			go func() {
				// The queue says how long.
				out, err := l.ReceiveMessage(l.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url})
				done <- result{out, err}
			}()
			select {
			case r := <-done:
				if test.act != nil {
					t.Fatalf("did not wait: %+v", r)
				}
				done <- r
			case <-time.After(200 * time.Millisecond):
			}
			begin := time.Now()
			if test.act != nil {
				test.act(l, url, m)
			}
			r := <-done
			l.must(r.err)
			if len(r.out.Messages) != 1 {
				t.Errorf("got %d messages", len(r.out.Messages))
			}
			if late := time.Since(begin); late > 3*time.Second {
				t.Errorf("woke after %v", late)
			}
		})
	}
	l.Run("nothing comes", func(t *testing.T) {
		t.Parallel()
		l := &lab{t, l.Client, l.local}
		url := l.queue(nil)
		begin := time.Now()
		out, err := l.ReceiveMessage(l.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 1})
		l.must(err)
		if took := time.Since(begin); len(out.Messages) > 0 || took < 950*time.Millisecond || took > 3*time.Second {
			t.Errorf("got %d messages after %v", len(out.Messages), took)
		}
	})
}

// testLongPollMany checks that no wake-up is lost: many waiting receives share out a batch for each of them.
func testLongPollMany(l *lab) {
	const receivers = 20
	url := l.queue(nil)
	got := make(chan []types.Message, receivers)
	for range receivers {
		go func() {
			out, err := l.ReceiveMessage(l.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 20})
			if err != nil {
				l.Error(err)
				got <- nil
				return
			}
			got <- out.Messages
		}()
	}
	begin := time.Now()
	for i := 0; i < receivers; i += 10 {
		var entries []types.SendMessageBatchRequestEntry
		for j := range 10 {
			entries = append(entries, types.SendMessageBatchRequestEntry{Id: aws.String(strconv.Itoa(j)),
				MessageBody: aws.String(strconv.Itoa(i + j))})
		}
		_, err := l.SendMessageBatch(l.Context(), &awssqs.SendMessageBatchInput{QueueUrl: &url, Entries: entries})
		l.must(err)
	}
	bodies := map[string]bool{}
	for range receivers {
		for _, m := range <-got {
			bodies[*m.Body] = true
		}
	}
	if len(bodies) != receivers || time.Since(begin) > 10*time.Second {
		l.Errorf("%d messages in %v", len(bodies), time.Since(begin))
	}
}

func testVisibility(l *lab) {
	url := l.queue(map[string]string{"VisibilityTimeout": "1"})
	id := l.send(url, "x")
	begin := time.Now()
	first := l.receive(url, 1, 5)[0]
	l.receive(url, 0, 0)
	second := l.receive(url, 1, 5, visibleFor(100))[0]
	if took := time.Since(begin); took < 950*time.Millisecond {
		l.Errorf("visible again after %v", took)
	}
	if *second.MessageId != id || *second.ReceiptHandle == *first.ReceiptHandle ||
		second.Attributes["ApproximateReceiveCount"] != "2" {
		l.Errorf("got %+v", second)
	}
	// The queue's timeout would be over within this wait, the receive's own is not.
	l.receive(url, 0, 1)
}

func testChangeVisibility(l *lab) {
	url := l.queue(nil)
	l.send(url, "x")
	m := l.receive(url, 1, 5, visibleFor(1))[0]
	l.must(l.change(url, m, 3))
	l.receive(url, 0, 1)
	l.must(l.change(url, m, 0))
	m = l.receive(url, 1, 5, visibleFor(1))[0]
	time.Sleep(1500 * time.Millisecond) // Expiry without a receive shows in no other way.
	refused[*types.MessageNotInflight](l, l.change(url, m, 10), "MessageNotInflight")

	m = l.receive(url, 1, 5, visibleFor(20))[0]
	time.Sleep(1100 * time.Millisecond) // The total bound counts from the receive.
	refused[generic](l, l.change(url, m, 43200), "InvalidParameterValue")
	refused[generic](l, l.change(url, m, 43201), "InvalidParameterValue")
	refused[generic](l, l.change(url, m, -1), "InvalidParameterValue")
	l.must(l.change(url, m, 43190))
	l.remove(url, m)
	refused[generic](l, l.change(url, m, 10), "InvalidParameterValue")
}

func testReceiptHandles(l *lab) {
	url, other := l.queue(nil), l.queue(nil)
	id := l.send(url, "x")
	old := l.receive(url, 1, 5)[0]
	l.must(l.change(url, old, 0))
	m := l.receive(url, 1, 5, visibleFor(1))[0]
	l.remove(url, old) // Succeeds; whether it deletes is left open.
	if l.local {
		m = l.receive(url, 1, 5, visibleFor(1))[0]
		if *m.MessageId != id {
			l.Errorf("got %s", *m.MessageId)
		}
		time.Sleep(1100 * time.Millisecond)
	}
	l.remove(url, m) // After the timeout, but before another receive.
	l.remove(url, m)
	l.receive(url, 0, 1)
	l.send(other, "x")
	foreign := l.receive(other, 1, 5)[0]
	for _, handle := range []string{"nonsense", "", *foreign.ReceiptHandle} {
		_, err := l.DeleteMessage(l.Context(), &awssqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: &handle})
		if handle == "" {
			refused[generic](l, err, "MissingParameter")
		} else {
			refused[*types.ReceiptHandleIsInvalid](l, err, "ReceiptHandleIsInvalid")
		}
	}
	refused[*types.ReceiptHandleIsInvalid](l, l.change(url, types.Message{ReceiptHandle: aws.String("nonsense")}, 1),
		"ReceiptHandleIsInvalid")
}

func testRedrive(l *lab) {
	for _, count := range []string{`2`, `"2"`} {
		url, dlq := l.withDLQ(count)
		id := l.send(url, "poison")
		var m types.Message
		for range 2 {
			m = l.receive(url, 1, 5)[0]
			l.must(l.change(url, m, 0))
		}
		l.receive(url, 0, 0)
		dead := l.receive(dlq, 1, 10)[0]
		if *dead.MessageId != id || *dead.Body != "poison" ||
			dead.Attributes["DeadLetterQueueSourceArn"] != l.arn(url) ||
			dead.Attributes["SentTimestamp"] != m.Attributes["SentTimestamp"] {
			l.Errorf("dead letter is %+v", dead)
		}
		l.remove(url, m) // The handle is the old queue's, where the message is no more.
		l.must(l.change(dlq, dead, 0))
		dead = l.receive(dlq, 1, 5)[0]
		sources, err := l.ListDeadLetterSourceQueues(l.Context(),
			&awssqs.ListDeadLetterSourceQueuesInput{QueueUrl: &dlq})
		l.must(err)
		if l.local && !slices.Equal(sources.QueueUrls, []string{url}) {
			l.Errorf("sources are %v", sources.QueueUrls)
		}
		if policy := l.attributes(url, "RedrivePolicy")["RedrivePolicy"]; !strings.Contains(policy, l.arn(dlq)) {
			l.Errorf("policy is %q", policy)
		}
		_, err = l.CreateQueue(l.Context(),
			&awssqs.CreateQueueInput{QueueName: aws.String(url[strings.LastIndex(url, "/")+1:]),
				Attributes: map[string]string{
					"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":3}`, l.arn(dlq)),
				}})
		refused[*types.QueueNameExists](l, err, "QueueAlreadyExists")
		l.must(l.set(url, "RedrivePolicy", ""))
		l.eventually("the policy is gone", func() bool { return len(l.attributes(url, "RedrivePolicy")) == 0 })
		l.remove(dlq, dead)
	}
}

func testCounts(l *lab) {
	url := l.queue(nil)
	for range 5 {
		l.send(url, "x")
	}
	_, err := l.SendMessage(l.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("x"),
		DelaySeconds: 900})
	l.must(err)
	for range 2 {
		_, err := l.ReceiveMessage(l.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 5})
		l.must(err)
	}
	l.eventually("3 visible, 2 in flight, 1 delayed", func() bool {
		a := l.attributes(url, "ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible",
			"ApproximateNumberOfMessagesDelayed")
		return a["ApproximateNumberOfMessages"] == "3" && a["ApproximateNumberOfMessagesNotVisible"] == "2" &&
			a["ApproximateNumberOfMessagesDelayed"] == "1"
	})
}

func testPurge(l *lab) {
	url := l.queue(nil)
	for range 3 {
		l.send(url, "x")
	}
	m := l.receive(url, 3, 5)[0]
	l.must(l.change(url, m, 0))
	_, err := l.PurgeQueue(l.Context(), &awssqs.PurgeQueueInput{QueueUrl: &url})
	l.must(err)
	l.eventually("the queue is empty", func() bool {
		a := l.attributes(url)
		return a["ApproximateNumberOfMessages"] == "0" && a["ApproximateNumberOfMessagesNotVisible"] == "0"
	})
	l.remove(url, m)
	_, err = l.PurgeQueue(l.Context(), &awssqs.PurgeQueueInput{QueueUrl: &url})
	if l.local {
		refused[*types.PurgeQueueInProgress](l, err, "PurgeQueueInProgress")
		l.send(url, "after")
		l.receive(url, 1, 5)
	}
}

// bury sends messages and receives each too often, so that they become dead letters of the queue.
func (l *lab) bury(url, dlq string, n int) map[string]bool {
	l.Helper()
	ids := map[string]bool{}
	for range n {
		ids[l.send(url, "x")] = true
	}
	for _, m := range l.receive(url, n, 5) {
		l.must(l.change(url, m, 0))
	}
	l.receive(url, 0, 0)
	l.eventually("the messages are dead", func() bool {
		return l.attributes(dlq)["ApproximateNumberOfMessages"] == strconv.Itoa(n)
	})
	return ids
}

func (l *lab) lastTask(dlq string) types.ListMessageMoveTasksResultEntry {
	l.Helper()
	out, err := l.ListMessageMoveTasks(l.Context(),
		&awssqs.ListMessageMoveTasksInput{SourceArn: aws.String(l.arn(dlq))})
	l.must(err)
	if len(out.Results) != 1 {
		l.Fatalf("%d tasks", len(out.Results))
	}
	return out.Results[0]
}

func testMoveToSource(l *lab) {
	url, dlq := l.withDLQ("1")
	ids := l.bury(url, dlq, 3)
	_, err := l.StartMessageMoveTask(l.Context(), &awssqs.StartMessageMoveTaskInput{SourceArn: aws.String(l.arn(dlq))})
	l.must(err)
	for _, m := range l.receive(url, 3, 10) {
		if ids[*m.MessageId] || m.Attributes["ApproximateReceiveCount"] != "1" ||
			m.Attributes["DeadLetterQueueSourceArn"] != "" {
			l.Errorf("got %s %v", *m.MessageId, m.Attributes)
		}
	}
	l.eventually("the task is completed", func() bool { return *l.lastTask(dlq).Status == "COMPLETED" })
	if task := l.lastTask(dlq); task.ApproximateNumberOfMessagesMoved != 3 ||
		*task.ApproximateNumberOfMessagesToMove != 3 ||
		task.TaskHandle != nil || *task.SourceArn != l.arn(dlq) ||
		task.StartedTimestamp < time.Now().Add(-time.Hour).UnixMilli() {
		l.Errorf("got %+v", task)
	}
}

func testMoveToDestination(l *lab) {
	url, dlq := l.withDLQ("1")
	other := l.queue(nil)
	l.bury(url, dlq, 3)
	begin := time.Now()
	_, err := l.StartMessageMoveTask(l.Context(), &awssqs.StartMessageMoveTaskInput{
		SourceArn: aws.String(l.arn(dlq)), DestinationArn: aws.String(l.arn(other)),
		MaxNumberOfMessagesPerSecond: aws.Int32(2),
	})
	l.must(err)
	l.receive(other, 3, 10)
	if took := time.Since(begin); took < 900*time.Millisecond {
		l.Errorf("3 messages at 2 per second took %v", took)
	}
	l.eventually("the task is completed", func() bool { return *l.lastTask(dlq).Status == "COMPLETED" })
	if task := l.lastTask(dlq); aws.ToString(task.DestinationArn) != l.arn(other) ||
		aws.ToInt32(task.MaxNumberOfMessagesPerSecond) != 2 {
		l.Errorf("got %+v", task)
	}
}

func testMoveCancel(l *lab) {
	url, dlq := l.withDLQ("1")
	l.bury(url, dlq, 5)
	in := &awssqs.StartMessageMoveTaskInput{SourceArn: aws.String(l.arn(dlq)),
		MaxNumberOfMessagesPerSecond: aws.Int32(1)}
	task, err := l.StartMessageMoveTask(l.Context(), in)
	l.must(err)
	if running := l.lastTask(dlq); *running.Status != "RUNNING" ||
		aws.ToString(running.TaskHandle) != *task.TaskHandle {
		l.Errorf("got %+v", running)
	}
	_, err = l.StartMessageMoveTask(l.Context(), in)
	refused[generic](l, err, "InvalidParameterValue")
	_, err = l.CancelMessageMoveTask(l.Context(), &awssqs.CancelMessageMoveTaskInput{TaskHandle: task.TaskHandle})
	l.must(err)
	l.eventually("the task is cancelled", func() bool { return *l.lastTask(dlq).Status == "CANCELLED" })
	if n := l.attributes(dlq)["ApproximateNumberOfMessages"]; l.local && (n < "3" || n > "5") {
		l.Errorf("%s messages left", n)
	}
	_, err = l.CancelMessageMoveTask(l.Context(), &awssqs.CancelMessageMoveTaskInput{TaskHandle: task.TaskHandle})
	refused[*types.UnsupportedOperation](l, err, "UnsupportedOperation")
}

func testMoveRefused(l *lab) {
	url, dlq := l.withDLQ("1")
	start := func(source, destination string, rate *int32) error {
		in := &awssqs.StartMessageMoveTaskInput{SourceArn: &source, MaxNumberOfMessagesPerSecond: rate}
		if destination != "" {
			in.DestinationArn = &destination
		}
		_, err := l.StartMessageMoveTask(l.Context(), in)
		return err
	}
	arn, plain := l.arn(dlq), l.arn(url)
	refused[*types.ResourceNotFoundException](l, start(arn+"-none", "", nil), "ResourceNotFoundException")
	refused[*types.ResourceNotFoundException](l, start(arn, arn+"-none", nil), "ResourceNotFoundException")
	refused[generic](l, start(plain, "", nil), "InvalidParameterValue")
	refused[generic](l, start(arn, arn, nil), "InvalidParameterValue")
	refused[generic](l, start(arn, "", aws.Int32(501)), "InvalidParameterValue")
	_, err := l.CancelMessageMoveTask(l.Context(), &awssqs.CancelMessageMoveTaskInput{TaskHandle: aws.String(arn +
		"/0")})
	if err == nil {
		l.Error("a task that does not exist was cancelled")
	}
	// A message that was sent to the dead-letter queue as such has no source to go back to, and stays.
	l.send(dlq, "no source")
	l.must(start(arn, "", nil))
	l.eventually("the task has failed", func() bool { return *l.lastTask(dlq).Status == "FAILED" })
	if task := l.lastTask(dlq); aws.ToString(task.FailureReason) != "CouldNotDetermineMessageSource" {
		l.Errorf("failed because of %q", aws.ToString(task.FailureReason))
	}
	l.receive(dlq, 1, 5)
}

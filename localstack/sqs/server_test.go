package sqs_test

import (
	"bufio"
	"encoding/json"
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"

	"stampede/localstack/sqs"
)

func TestAddress(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0", "localhost:0",
		"127.0.0.1", "x"} {
		if s, err := sqs.Start(sqs.Options{Addr: addr}); err == nil {
			_ = s.Close()
			t.Errorf("%q was accepted", addr)
		}
	}
	s := start(t, sqs.Options{Region: "eu-central-1"})
	if !strings.HasPrefix(s.URL(), "http://127.0.0.1:") {
		t.Errorf("URL is %s", s.URL())
	}
	l := &lab{t, newClient(t, s.URL(), 1, localCredentials), true}
	if arn := l.arn(l.queue(nil)); !strings.HasPrefix(arn, "arn:aws:sqs:eu-central-1:000000000000:") {
		t.Errorf("ARN is %s", arn)
	}
}

// TestProtocol sends what no SDK would.
func TestProtocol(t *testing.T) {
	t.Parallel()
	s := start(t, sqs.Options{})
	transport := &http.Transport{}
	client := &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	for what, test := range map[string]struct {
		method, target, body string
		status               int
		shape, code          string
	}{
		"works": {"POST", "AmazonSQS.ListQueues", `{}`, 200, "", ""},
		"null is absent": {"POST", "AmazonSQS.ListQueues", ` {"QueueNamePrefix":null,"Tags":{"a":[1.5e3,true,{}]}} `,
			200, "", ""},
		"wrong method": {"GET", "AmazonSQS.ListQueues", ``, 405, "UnknownOperationException",
			"InvalidHttpMethod;Sender"},
		"no target": {"POST", "", `{"Action":"ListQueues"}`, 400, "UnknownOperationException",
			"InvalidAction;Sender"},
		"unknown action": {"POST", "AmazonSQS.Fly", `{}`, 400, "UnknownOperationException", "InvalidAction;Sender"},
		"other service": {"POST", "DynamoDB.ListTables", `{}`, 400, "UnknownOperationException",
			"InvalidAction;Sender"},
		"empty body": {"POST", "AmazonSQS.ListQueues", ``, 400, "SerializationException",
			"MalformedInput;Sender"},
		"not JSON": {"POST", "AmazonSQS.ListQueues", `{"QueueNamePrefix":"a`, 400, "SerializationException",
			"MalformedInput;Sender"},
		"rest after JSON": {"POST", "AmazonSQS.ListQueues", `{}{}`, 400, "SerializationException",
			"MalformedInput;Sender"},
		"wrong type": {"POST", "AmazonSQS.ListQueues", `{"MaxResults":"5"}`, 400, "SerializationException",
			"MalformedInput;Sender"},
		"fraction": {"POST", "AmazonSQS.ListQueues", `{"MaxResults":1.5}`, 400, "SerializationException",
			"MalformedInput;Sender"},
		"too deep": {"POST", "AmazonSQS.ListQueues", `{"x":` + strings.Repeat("[", 1<<20) + `}`, 400,
			"SerializationException", "MalformedInput;Sender"},
		"array": {"POST", "AmazonSQS.SendMessageBatch", `[]`, 400, "SerializationException",
			"MalformedInput;Sender"},
		"bad base64": {"POST", "AmazonSQS.SendMessage",
			`{"MessageAttributes":{"a":{"DataType":"Binary","BinaryValue":"*"}}}`, 400, "SerializationException",
			"MalformedInput;Sender"},
		"missing parameter": {"POST", "AmazonSQS.SendMessage", `{}`, 400, "MissingRequiredParameterException",
			"MissingParameter;Sender"},
		"no handle": {"POST", "AmazonSQS.DeleteMessage", `{"QueueUrl":"http://x/q"}`, 400, "QueueDoesNotExist",
			"AWS.SimpleQueueService.NonExistentQueue;Sender"},
		"name of odd bytes": {"POST", "AmazonSQS.CreateQueue", "{\"QueueName\":\"\xff\\ud800\"}", 400,
			"InvalidParameterValueException", "InvalidParameterValue;Sender"},
	} {
		t.Run(what, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), test.method, s.URL()+"/", strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Amz-Target", test.target)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			var answer struct {
				Type    string `json:"__type"`
				Message string `json:"message"`
			}
			if err := json.Unmarshal(body, &answer); err != nil {
				t.Errorf("answer %q: %v", body, err)
			}
			if resp.StatusCode != test.status || !strings.HasSuffix(answer.Type, test.shape) ||
				resp.Header.Get("x-amzn-query-error") != test.code {
				t.Errorf("got %d %q %v", resp.StatusCode, body, resp.Header)
			}
			if resp.Header.Get("x-amzn-RequestId") == "" ||
				resp.Header.Get("Content-Type") != "application/x-amz-json-1.0" {
				t.Errorf("headers are %v", resp.Header)
			}
		})
	}
}

// TestQueryProtocol calls as clients of 2023 did, who read errors in XML.
func TestQueryProtocol(t *testing.T) {
	t.Parallel()
	s := start(t, sqs.Options{})
	transport := &http.Transport{}
	client := &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	const form = "Action=CreateQueue&Version=2012-11-05&QueueName=a"
	for what, call := range map[string]func() (*http.Response, error){
		"a form": func() (*http.Response, error) {
			return client.Post(s.URL()+"/", "application/x-www-form-urlencoded; charset=utf-8", strings.NewReader(form))
		},
		"an address": func() (*http.Response, error) { return client.Get(s.URL() + "/?" + form) },
	} {
		resp, err := call()
		if err != nil {
			t.Fatal(err)
		}
		var answer struct {
			XMLName xml.Name `xml:"http://queue.amazonaws.com/doc/2012-11-05/ ErrorResponse"`
			Error   struct{ Type, Code, Message string }

			RequestID string `xml:"RequestId"`
		}
		if err := xml.NewDecoder(resp.Body).Decode(&answer); err != nil {
			t.Fatalf("%s: %d, no XML: %v", what, resp.StatusCode, err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 400 || resp.Header.Get("Content-Type") != "text/xml" || answer.Error.Type != "Sender" ||
			answer.Error.Code != "InvalidAction" || answer.RequestID != resp.Header.Get("x-amzn-RequestId") {
			t.Errorf("%s: %d %v %+v", what, resp.StatusCode, resp.Header, answer)
		}
		for _, want := range []string{"AWS JSON 1.0", "boto3 1.34.90", "AWS CLI 1.32.90 or 2.16"} {
			if !strings.Contains(answer.Error.Message, want) {
				t.Errorf("%s: the message lacks %q: %s", what, want, answer.Error.Message)
			}
		}
	}
}

// A body that is too large is refused by its length alone, so that nobody has to send it.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	s := start(t, sqs.Options{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: "+
		"AmazonSQS.SendMessage\r\nContent-Length: 7000000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 413 || resp.Header.Get("x-amzn-query-error") != "RequestEntityTooLarge;Sender" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
}

func TestLoneSurrogate(t *testing.T) {
	t.Parallel()
	l, s := local(t, nil)
	url := l.queue(nil)
	resp, err := l.raw(s, "SendMessage", `{"QueueUrl":"`+url+`","MessageBody":"\ud83d"}`)
	l.must(err)
	if resp != "InvalidMessageContents;Sender" {
		t.Errorf("got %q", resp)
	}
	resp, err = l.raw(s, "SendMessage", `{"QueueUrl":"`+url+`","MessageBody":"\ud83d\ude00\u0041\/"}`)
	l.must(err)
	if got := l.receive(url, 1, 0)[0]; resp != "" || *got.Body != "😀A/" {
		t.Errorf("got %q, %q", resp, *got.Body)
	}
}

// raw returns the code of the error that a request is answered with.
func (l *lab) raw(s *sqs.Server, action, body string) (code string, err error) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(l.Context(), "POST", s.URL(), strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Amz-Target", "AmazonSQS."+action)
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return "", err
	}
	return resp.Header.Get("x-amzn-query-error"), resp.Body.Close()
}

func TestRequests(t *testing.T) {
	t.Parallel()
	l, s := local(t, nil)
	url := l.queue(nil)
	l.sendN(url, 3)
	l.receive(url, 3, 0)
	_ = l.trySend("http://x/none")
	got := s.Requests()
	if len(got) != 3 || got["CreateQueue"] != 1 || got["SendMessage"] != 4 || got["ReceiveMessage"] != 1 {
		t.Errorf("got %v", got)
	}
}

// TestSentBytes counts quotes twice where they are escaped, and messages that were refused not at all.
func TestSentBytes(t *testing.T) {
	t.Parallel()
	l, s := local(t, nil)
	url := l.queue(nil)
	l.send(url, `{"a":1}`)
	l.send(url, `plain`)
	_ = l.trySend("http://x/none")
	if inRequests, billed := s.SentBytes(); inRequests != 14 || billed != 12 {
		t.Errorf("%d bytes in requests, %d billed", inRequests, billed)
	}
}

func TestMostReceived(t *testing.T) {
	t.Parallel()
	l, s := local(t, nil)
	url := l.queue(nil)
	name := url[strings.LastIndexByte(url, '/')+1:]
	l.send(url, "x")
	for range 3 {
		l.must(l.change(url, l.receive(url, 1, 0)[0], 0))
	}
	l.remove(url, l.receive(url, 1, 0)[0])
	l.send(url, "y")
	l.receive(url, 1, 0)
	if got := s.MostReceived(name); got != 4 {
		t.Errorf("got %d", got)
	}
	if got := s.MostReceived("another"); got != 0 {
		t.Errorf("of no queue: %d", got)
	}
}

// TestMessages counts messages that wait, that are delayed and that are in flight, until they are deleted.
func TestMessages(t *testing.T) {
	t.Parallel()
	l, s := local(t, nil)
	url := l.queue(nil)
	name := url[strings.LastIndexByte(url, '/')+1:]
	l.send(url, "x")
	l.send(url, "y")
	_, err := l.SendMessage(t.Context(), &awssqs.SendMessageInput{QueueUrl: &url, MessageBody: aws.String("z"),
		DelaySeconds: 60})
	l.must(err)
	received := l.receive(url, 2, 0)[0]
	if got := s.Messages(name); got != 3 {
		t.Errorf("got %d", got)
	}
	l.remove(url, received)
	if got := s.Messages(name); got != 2 {
		t.Errorf("after a deletion: %d", got)
	}
	if got := s.Messages("another"); got != 0 {
		t.Errorf("of no queue: %d", got)
	}
}

// TestClose closes a server with a receive that waits, an answer that is delayed, a task that runs and connections
// that idle. That no goroutine is left is checked when all tests have ended.
func TestClose(t *testing.T) {
	t.Parallel()
	s, err := sqs.Start(sqs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t, newClient(t, s.URL(), 1, localCredentials), true}
	url, dlq := l.withDLQ("1")
	l.bury(url, dlq, 2)
	_, err = l.StartMessageMoveTask(t.Context(), &awssqs.StartMessageMoveTaskInput{SourceArn: aws.String(l.arn(dlq)),
		MaxNumberOfMessagesPerSecond: aws.Int32(1)})
	l.must(err)
	waiting, delayed := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := l.ReceiveMessage(t.Context(), &awssqs.ReceiveMessageInput{QueueUrl: &url, WaitTimeSeconds: 20})
		waiting <- err
	}()
	s.SetFaults(sqs.Faults{Delay: time.Minute, Actions: []string{"SendMessage"}})
	go func() { delayed <- l.trySend(dlq) }()
	l.eventually("both are under way", func() bool { return s.Waiting() == 1 && s.Requests()["SendMessage"] == 3 })
	begin := time.Now()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("took %v", took)
	}
	l.must(<-waiting)
	l.must(<-delayed)
	if l.trySend(url) == nil {
		t.Error("answered after the end")
	}
	// The queues went with the server, so there is nothing that the cleanup could delete.
}

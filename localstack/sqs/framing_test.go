package sqs_test

import (
	"strings"
	"testing"

	"stampede/localstack/sqs"
	"stampede/localstack/stacktest"
)

const (
	noAction    = "X-Amz-Target: AmazonSQS.None\r\n"
	nextRequest = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Amz-Target: " +
		"AmazonSQS.ListQueues\r\nContent-Length: 2\r\n\r\n{}"
)

// TestAmbiguousFraming sends requests whose end a proxy may see elsewhere.
func TestAmbiguousFraming(t *testing.T) {
	t.Parallel()
	s := start(t, sqs.Options{})
	stacktest.AmbiguousFramings(t, strings.TrimPrefix(s.URL(), "http://"), "POST /", noAction, nextRequest)
}

// TestFramingThroughNginx sends them to an nginx in front of the server.
func TestFramingThroughNginx(t *testing.T) {
	t.Parallel()
	s := start(t, sqs.Options{})
	stacktest.FramingsThroughNginx(t, strings.TrimPrefix(s.URL(), "http://"), "POST /", noAction, nextRequest)
}

// TestContinue calls as Java's HTTP client does: it sends the body when it is told to.
func TestContinue(t *testing.T) {
	t.Parallel()
	s := start(t, sqs.Options{})
	stacktest.Continues(t, strings.TrimPrefix(s.URL(), "http://"), "POST /", "X-Amz-Target: AmazonSQS.ListQueues\r\n",
		"{}")
}

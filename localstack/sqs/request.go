package sqs

import (
	"bytes"
	"encoding/base64"
	"net"
	"sync"
)

// call is one request on its way through the server, kept in a pool. Nothing in it may be used after the answer is
// written, so whatever a queue keeps is copied.
type call struct {
	request
	action   *action
	conn     net.Conn
	injector *injector // Nil if no fault applies to this call.
	decoder  decoder
	received []delivery
	messages []*message
	out      []byte // The body of a successful answer.
}

var calls = sync.Pool{New: func() any { return new(call) }}

// maxKeptBytes is the largest buffer that stays in the pool, so that a burst of large messages does not hold its
// memory for ever.
const maxKeptBytes = 256 << 10

func (c *call) release() {
	clear(c.received[:cap(c.received)])
	clear(c.messages[:cap(c.messages)])
	clear(c.entries[:cap(c.entries)])
	c.request = request{
		entries: c.entries[:0], attributeNames: c.attributeNames[:0],
		systemNames: c.systemNames[:0], messageNames: c.messageNames[:0],
	}
	c.action, c.conn, c.injector = nil, nil, nil
	c.out, c.received, c.messages = c.out[:0], c.received[:0], c.messages[:0]
	c.decoder.in = nil
	if cap(c.out) > maxKeptBytes {
		c.out = nil
	}
	if cap(c.decoder.arena) > maxKeptBytes {
		c.decoder.arena = nil
	}
	calls.Put(c)
}

// request holds the input of any action: SQS uses each name with one meaning, so one shape and one decoder serve all.
// Byte slices point into the request body or the decoder's arena. Nil means absent.
type request struct {
	entry   // What an action on a single message and an entry of a batch have in common.
	entries []entry

	queueURL, queueName, prefix, nextToken []byte
	sourceARN, destinationARN, taskHandle  []byte
	maxResults, maxMessages, wait, rate    number
	attributes                             []attributePair
	attributeNames, systemNames            [][]byte
	messageNames                           [][]byte
}

type entry struct {
	id, body, bodyRaw, handle []byte
	delay, visibility         number
	attributes                []attribute
	trace                     []byte
	group                     []byte
	grouped                   bool
	deduplicated              bool // A parameter for FIFO queues was given.
	unknownSystemAttribute    bool
}

type number struct {
	n   int64
	set bool
}

// or returns the number, or what applies if there is none.
func (n number) or(absent int64) int64 {
	if n.set {
		return n.n
	}
	return absent
}

func (n number) outside(low, high int64) bool { return n.set && (n.n < low || n.n > high) }

type attributePair struct{ name, value string }

func (c *call) decode(body []byte) bool {
	d := &c.decoder
	d.reset(body)
	r := &c.request
	return d.document(func(key []byte) bool {
		switch string(key) {
		case "QueueUrl":
			return d.text(&r.queueURL)
		case "QueueName":
			return d.text(&r.queueName)
		case "QueueNamePrefix":
			return d.text(&r.prefix)
		case "NextToken":
			return d.text(&r.nextToken)
		case "SourceArn":
			return d.text(&r.sourceARN)
		case "DestinationArn":
			return d.text(&r.destinationARN)
		case "TaskHandle":
			return d.text(&r.taskHandle)
		case "MaxResults":
			return d.int(&r.maxResults)
		case "MaxNumberOfMessages":
			return d.int(&r.maxMessages)
		case "WaitTimeSeconds":
			return d.int(&r.wait)
		case "MaxNumberOfMessagesPerSecond":
			return d.int(&r.rate)
		case "AttributeNames":
			return d.texts(&r.attributeNames)
		case "MessageSystemAttributeNames":
			return d.texts(&r.systemNames)
		case "MessageAttributeNames":
			return d.texts(&r.messageNames)
		case "Attributes":
			return d.object(func(name []byte) bool {
				_, value, ok := d.str()
				r.attributes = append(r.attributes, attributePair{string(name), string(value)})
				return ok
			})
		case "Entries":
			return d.array(func() bool {
				// One entry above the limit is enough to refuse the batch, so the rest is not kept.
				if len(r.entries) <= maxBatchEntries {
					r.entries = append(r.entries, entry{})
				}
				e := &r.entries[len(r.entries)-1]
				return d.object(func(key []byte) bool { return d.entryField(e, key) })
			})
		default:
			return d.entryField(&r.entry, key)
		}
	})
}

func (d *decoder) entryField(e *entry, key []byte) bool {
	switch string(key) {
	case "Id":
		return d.text(&e.id)
	case "MessageBody":
		var ok bool
		e.bodyRaw, e.body, ok = d.str()
		return ok
	case "ReceiptHandle":
		return d.text(&e.handle)
	case "DelaySeconds":
		return d.int(&e.delay)
	case "VisibilityTimeout":
		return d.int(&e.visibility)
	case "MessageAttributes":
		return d.object(func(name []byte) bool {
			// As with entries, one more than allowed is enough to know.
			if len(e.attributes) <= maxMessageAttributes {
				e.attributes = append(e.attributes, attribute{})
			}
			a := &e.attributes[len(e.attributes)-1]
			a.name = string(name)
			return d.attributeValue(a)
		})
	case "MessageSystemAttributes":
		return d.object(func(name []byte) bool {
			a := attribute{name: string(name)}
			if !d.attributeValue(&a) {
				return false
			}
			if a.name != "AWSTraceHeader" || a.dataType != "String" {
				e.unknownSystemAttribute = true
			}
			e.trace = []byte(a.value)
			return true
		})
	case "MessageGroupId":
		e.grouped = true
		return d.text(&e.group)
	case "MessageDeduplicationId":
		e.deduplicated = true
		return d.skip(0)
	default:
		return d.skip(0)
	}
}

func (d *decoder) attributeValue(a *attribute) bool {
	return d.object(func(key []byte) bool {
		var text []byte
		switch string(key) {
		case "DataType":
			ok := d.text(&text)
			a.dataType = string(text)
			return ok
		case "StringValue":
			ok := d.text(&text)
			a.value, a.hasString = string(text), true
			return ok
		case "BinaryValue":
			if !d.text(&text) {
				return false
			}
			value, err := base64.StdEncoding.AppendDecode(nil, text)
			a.value, a.hasBinary = string(value), true
			return err == nil
		default:
			return d.skip(0)
		}
	})
}

func (d *decoder) text(to *[]byte) (ok bool) {
	_, *to, ok = d.str()
	return ok
}

func (d *decoder) int(to *number) (ok bool) {
	to.n, ok = d.integer()
	to.set = ok
	return ok
}

func (d *decoder) texts(to *[][]byte) bool {
	return d.array(func() bool {
		_, text, ok := d.str()
		*to = append(*to, text)
		return ok
	})
}

// target returns the name of the queue that a request is about, in whatever way it says so, or nil. A queue URL counts
// by its last element only: its host is whatever name the client reaches this server by.
func (r *request) target() []byte {
	switch {
	case r.queueURL != nil:
		return r.queueURL[bytes.LastIndexByte(r.queueURL, '/')+1:]
	case r.queueName != nil:
		return r.queueName
	default:
		return r.sourceARN[bytes.LastIndexByte(r.sourceARN, ':')+1:]
	}
}

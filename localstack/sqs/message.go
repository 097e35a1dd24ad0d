package sqs

import (
	"cmp"
	"crypto/md5"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	maxMessageBytes      = 1 << 20 // SQS quota for a message, and for a batch as a whole.
	maxMessageAttributes = 10      // SQS quota.
	maxNameBytes         = 256     // SQS quota for the name and for the type of a message attribute.
)

// message is one message in one queue. The first group of fields never changes once the message is in a queue, so an
// answer is written from them without the queue's lock; the second belongs to the queue's lock.
type message struct {
	id       [16]byte
	body     []byte // As JSON string text, escaped as its sender escaped it, so that nobody has to escape it again.
	bodyMD5  [md5.Size]byte
	attrs    []attribute // Sorted by name.
	attrsMD5 [md5.Size]byte
	trace    string
	group    string // Of a fair queue: whose message it is.
	sentAt   int64

	seq           uint64 // Names the message within its queue.
	receives      uint32 // In all queues, as ApproximateReceiveCount shows it.
	receivesHere  uint32 // In this queue, which is what a redrive policy counts; also tells receipt handles apart.
	firstReceived int64
	receivedAt    int64
	visibleAt     int64
	source        string // ARN of the queue whose redrive policy moved it here.
	duplicate     bool   // A fault's copy of another message.

	state      state
	prev, next *message // Place in the ready list.
	heapIndex  int      // Place in the heap of hidden messages.
}

type attribute struct {
	name, dataType, value string
	hasString, hasBinary  bool
}

func (a *attribute) size() int { return len(a.name) + len(a.dataType) + len(a.value) }

// delivery is what a receive hands out. It copies what may change as soon as the queue is unlocked.
type delivery struct {
	*message
	handle        handle
	receives      uint32
	firstReceived int64
	source        string
}

// newMessage checks an entry as SQS would and makes a message of it. The entry's size counts towards a batch's.
func newMessage(e *entry, cfg *config, now int64) (*message, *apiError) {
	if len(e.body) == 0 {
		return nil, missing("MessageBody")
	}
	if size := e.size(); int64(size) > cfg.maxMessageBytes {
		return nil, errInvalidParameter.with("One or more parameters are invalid. Reason: Message must be shorter "+
			"than %d bytes.", cfg.maxMessageBytes)
	}
	if e.delay.outside(0, maxDelaySeconds) {
		return nil, invalid("DelaySeconds", e.delay.n, "DelaySeconds must be >= 0 and <= 900.")
	}
	if e.deduplicated {
		return nil, invalid("MessageDeduplicationId", "given",
			"The request includes a parameter that is not valid for this queue type.")
	}
	if e.grouped && !validGroup(e.group) {
		return nil, invalid("MessageGroupId", string(e.group),
			"MessageGroupId can only include alphanumeric and punctuation characters. 1 to 128 in length.")
	}
	if e.unknownSystemAttribute {
		return nil, errInvalidParameter.with("The only message system attribute that can be sent is AWSTraceHeader, " +
			"of type String.")
	}
	if !validContents(e.body) {
		return nil, errMessageContents
	}
	if err := checkAttributes(e.attributes); err != nil {
		return nil, err
	}
	m := &message{
		id: newID(), body: slices.Clone(e.bodyRaw), bodyMD5: md5.Sum(e.body), trace: string(e.trace),
		group: string(e.group), sentAt: now,
	}
	if len(e.attributes) > 0 {
		m.attrs = slices.Clone(e.attributes)
		slices.SortFunc(m.attrs, func(a, b attribute) int { return cmp.Compare(a.name, b.name) })
		m.attrsMD5 = attributesMD5(m.attrs)
	}
	if delay := e.delay.or(cfg.delaySeconds); delay > 0 {
		m.visibleAt = now + delay*second
	}
	return m, nil
}

func (e *entry) size() int {
	size := len(e.body)
	for i := range e.attributes {
		size += e.attributes[i].size()
	}
	return size
}

// validGroup reports whether text is what SQS accepts as a MessageGroupId.
func validGroup(text []byte) bool {
	for _, c := range text {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(text) >= 1 && len(text) <= 128
}

// validContents reports whether text has only characters that XML 1.0 allows, which is what SQS accepts in a message.
func validContents[T string | []byte](text T) bool {
	for i := 0; i < len(text); {
		c := text[i]
		if c >= 0x20 && c < utf8.RuneSelf || c == '\t' || c == '\n' || c == '\r' {
			i++
			continue
		}
		if c < 0x20 {
			return false
		}
		r, n := utf8.DecodeRuneInString(string(text[i:min(len(text), i+utf8.UTFMax)]))
		if r == utf8.RuneError && n == 1 || r == 0xFFFE || r == 0xFFFF {
			return false
		}
		i += n
	}
	return true
}

func checkAttributes(attrs []attribute) *apiError {
	if len(attrs) > maxMessageAttributes {
		return errInvalidParameter.with("Number of message attributes exceeds the allowed maximum [%d].",
			maxMessageAttributes)
	}
	for i := range attrs {
		a := &attrs[i]
		if !validAttributeName(a.name) {
			return errInvalidParameter.with("The message attribute name %q is invalid. It can have 1 to 256 letters, "+
				"digits, '_', '-' and '.', must neither start nor end with '.' nor have two in succession, and must "+
				"not start with AWS. or Amazon.", a.name)
		}
		base, _, _ := strings.Cut(a.dataType, ".")
		switch {
		case len(a.dataType) > maxNameBytes || base != "String" && base != "Number" && base != "Binary":
			return errInvalidParameter.with("The type of message attribute %q is invalid. It must be String, Number "+
				"or Binary, or one of them with a custom label.", a.name)
		case a.value == "" || (base == "Binary") != a.hasBinary || a.hasBinary == a.hasString:
			return errInvalidParameter.with("The message attribute %q must contain a non-empty value for message "+
				"attribute type %q.", a.name, base)
		case base == "Number" && !validNumber(a.value):
			return errInvalidParameter.with("Can't cast the value of message attribute %q to a number.", a.name)
		case a.hasString && !validContents(a.value):
			return errMessageContents
		}
	}
	return nil
}

func validAttributeName(name string) bool {
	lower := strings.ToLower(name)
	return name != "" && len(name) <= maxNameBytes && onlyNameBytes(name, "_-.") &&
		name[0] != '.' && name[len(name)-1] != '.' && !strings.Contains(name, "..") &&
		!strings.HasPrefix(lower, "aws.") && !strings.HasPrefix(lower, "amazon.")
}

// onlyNameBytes reports whether name has only letters, digits and the extra bytes.
func onlyNameBytes[T string | []byte](name T, extra string) bool {
	for i := range len(name) {
		c := name[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return true
}

func validNumber(value string) bool {
	if strings.Trim(value, "0123456789+-.eE") != "" {
		return false // ParseFloat also takes hexadecimal, underscores and the names of infinity.
	}
	_, err := strconv.ParseFloat(value, 64)
	return err == nil
}

// attributesMD5 is the digest that SDKs check: of the attributes in the order of their names, name, type and value
// each after its length, and one byte for the kind of value before it. See "Calculating the MD5 message digest for
// message attributes" in the SQS developer guide.
func attributesMD5(attrs []attribute) (sum [md5.Size]byte) {
	var b []byte
	add := func(s string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	for i := range attrs {
		a := &attrs[i]
		add(a.name)
		add(a.dataType)
		if a.hasBinary {
			b = append(b, 2)
		} else {
			b = append(b, 1)
		}
		add(a.value)
	}
	return md5.Sum(b)
}

// newID makes a random UUID. Ids here are names, not secrets, so the runtime's generator is good enough.
func newID() (id [16]byte) {
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0F | 0x40
	id[8] = id[8]&0x3F | 0x80
	return id
}

func appendID(b []byte, id *[16]byte) []byte {
	for i, part := range [...][]byte{id[:4], id[4:6], id[6:8], id[8:10], id[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}

// handle is what a receipt handle says: which message of which queue, and which of its receives.
type handle struct {
	queue, seq uint64
	receive    uint32
}

const handleBytes = 20

func (h handle) append(b []byte) []byte {
	var raw [handleBytes]byte
	binary.BigEndian.PutUint64(raw[:], h.queue)
	binary.BigEndian.PutUint64(raw[8:], h.seq)
	binary.BigEndian.PutUint32(raw[16:], h.receive)
	return base64.RawURLEncoding.AppendEncode(b, raw[:])
}

func parseHandle(text []byte) (h handle, ok bool) {
	var raw [handleBytes + 3]byte
	if base64.RawURLEncoding.DecodedLen(len(text)) != handleBytes {
		return h, false
	}
	if n, err := base64.RawURLEncoding.Decode(raw[:], text); err != nil || n != handleBytes {
		return h, false
	}
	return handle{binary.BigEndian.Uint64(raw[:]), binary.BigEndian.Uint64(raw[8:]), binary.BigEndian.Uint32(raw[16:])},
		true
}

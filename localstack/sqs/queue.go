package sqs

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	second = int64(time.Second)

	maxInFlight          = 120_000      // SQS quota for a standard queue.
	maxVisibilitySeconds = 12 * 60 * 60 // SQS quota, for one timeout and for all of a receive together.
	maxDelaySeconds      = 15 * 60      // SQS quota.
	purgeInterval        = 60 * second  // SQS allows one purge per queue in this time.
	reorderWindow        = 256          // How far from the head a reordered receive looks, to bound the walk.
)

var epoch = time.Now()

// clock returns the time as nanoseconds since 1970. It is monotonic, so that a clock that is set back neither hides
// messages for longer nor shows them early.
func clock() int64 { return epoch.UnixNano() + int64(time.Since(epoch)) }

// state says where a message is, and thereby which structure of the queue holds it.
type state uint8

const (
	outside  state = iota // In no queue: not sent yet, deleted, or on its way to another queue.
	ready                 // In the ready list.
	delayed               // In the heap of hidden messages: sent with a delay that is not over.
	inFlight              // In the heap of hidden messages: received, with a visibility timeout that is not over.
)

// queue is a standard queue. Sending and receiving at the ends of the ready list take constant time, everything that
// involves a timeout logarithmic time in the number of hidden messages. Timeouts are looked at when the queue is used,
// and by one timer while a receive waits. The state of a message changes in place and nowhere else.
type queue struct {
	name, arn, url string
	id             uint64 // Tells the receipt handles of this queue from those of others, and of a namesake before it.
	createdAt      int64
	config         atomic.Pointer[config] // Replaced as a whole, under mu.

	mu       sync.Mutex
	deleted  bool
	lastSeq  uint64
	ready    list
	hidden   hiddenHeap
	inFlight int
	received map[uint64]*message // By seq: those received at least once, which a receipt handle can mean.
	waiters  []*waiter
	timer    *time.Timer // Fires when the first hidden message becomes visible, while a receive waits.
	timerAt  int64       // Zero if the timer is not set.
	purgedAt int64
	most     uint32      // The highest receive count of any message so far.
	tasks    []*moveTask // Newest last.
}

// waiter is a receive that waits. It is woken once each time it is enlisted.
type waiter struct{ wake chan struct{} }

func newQueue(name, arn, url string, cfg *config, now int64) *queue {
	q := &queue{name: name, arn: arn, url: url, id: rand.Uint64(), createdAt: now, received: map[uint64]*message{}}
	q.config.Store(cfg)
	return q
}

// place moves a message from where it is to where it belongs in its new state.
func (q *queue) place(m *message, to state) {
	switch m.state {
	case ready:
		q.ready.remove(m)
	case delayed, inFlight:
		heap.Remove(&q.hidden, m.heapIndex)
	}
	if m.state == inFlight {
		q.inFlight--
	}
	m.state = to
	switch to {
	case outside:
		delete(q.received, m.seq)
	case ready:
		q.ready.pushBack(m)
	case inFlight:
		q.inFlight++
		heap.Push(&q.hidden, m)
	case delayed:
		heap.Push(&q.hidden, m)
	}
}

// send puts messages into the queue, those with a time to become visible as delayed ones. It reports false, and takes
// none, if the queue has been deleted.
func (q *queue) send(now int64, messages ...*message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return false
	}
	for _, m := range messages {
		q.lastSeq++
		m.seq = q.lastSeq
		if m.visibleAt > now {
			q.place(m, delayed)
		} else {
			q.place(m, ready)
		}
	}
	q.changed(now)
	return true
}

// advance lets time pass: messages whose timeout is over become ready, those kept for too long go.
func (q *queue) advance(now int64) {
	oldest := now - q.config.Load().retentionSeconds*second
	for len(q.hidden) > 0 && q.hidden[0].visibleAt <= now {
		if m := q.hidden[0]; m.sentAt <= oldest {
			q.place(m, outside)
		} else {
			q.place(m, ready)
		}
	}
	for q.ready.head != nil && q.ready.head.sentAt <= oldest {
		q.place(q.ready.head, outside)
	}
}

// receiving is what a receive asks for.
type receiving struct {
	max        int
	visibility int64 // Nanoseconds.
	hasDLQ     bool  // The redrive policy applies, since its dead-letter queue exists.
	injector   *injector
}

// take delivers ready messages, as many as wanted. It returns apart those that have been received too often already,
// which the caller owes to the dead-letter queue: two queues are never locked at once.
func (q *queue) take(now int64, want *receiving, out []delivery) (deliveries []delivery, dead []*message) {
	q.advance(now)
	cfg := q.config.Load()
	oldest := now - cfg.retentionSeconds*second
	var twins []*message
	for len(out) < want.max && q.ready.head != nil && q.inFlight < maxInFlight {
		m := q.ready.head
		if want.injector.roll(reorder) {
			m = q.ready.at(want.injector.pick(min(q.ready.len, reorderWindow)))
		}
		if m.sentAt <= oldest {
			q.place(m, outside)
			continue
		}
		if want.hasDLQ && int64(m.receivesHere) >= cfg.redrive.maxReceiveCount {
			q.place(m, outside)
			m.source, m.receivesHere, m.visibleAt = q.arn, 0, 0
			dead = append(dead, m)
			continue
		}
		if m.firstReceived == 0 {
			m.firstReceived = now
		}
		if !m.duplicate && want.injector.roll(duplicate) {
			// The copy lives on its own, like one on a server of SQS that misses the delete.
			twin := *m
			twin.prev, twin.next, twin.state, twin.duplicate = nil, nil, outside, true
			q.lastSeq++
			twin.seq = q.lastSeq
			twins = append(twins, &twin)
		}
		m.receives++
		m.receivesHere++
		q.most = max(q.most, m.receivesHere)
		m.receivedAt, m.visibleAt = now, now+want.visibility
		q.received[m.seq] = m
		q.place(m, inFlight)
		out = append(out, delivery{
			message: m, handle: handle{q.id, m.seq, m.receivesHere},
			receives: m.receives, firstReceived: m.firstReceived, source: m.source,
		})
	}
	for _, twin := range twins {
		q.place(twin, ready)
	}
	return out, dead
}

// remove deletes the message that a receipt handle means. A handle from before the last receive deletes nothing, and
// deleting again is no error, as in SQS.
func (q *queue) remove(now int64, h handle) *apiError {
	if h.queue != q.id {
		return errHandleInvalid
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return errQueueDoesNotExist
	}
	if m := q.received[h.seq]; m != nil && m.receivesHere == h.receive {
		q.place(m, outside)
		q.changed(now) // A receive may wait for the number in flight to go down.
	}
	return nil
}

// changeVisibility sets when a message in flight becomes visible, counted from now.
func (q *queue) changeVisibility(now int64, h handle, seconds int64) *apiError {
	if h.queue != q.id {
		return errHandleInvalid
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return errQueueDoesNotExist
	}
	q.advance(now)
	m := q.received[h.seq]
	if m == nil {
		return errInvalidParameter.with("The receipt handle is invalid. Reason: Message does not exist or is not " +
			"available for visibility timeout change.")
	}
	if m.state != inFlight || m.receivesHere != h.receive {
		return errMessageNotInflight
	}
	if (now-m.receivedAt)/second+seconds > maxVisibilitySeconds {
		return invalid("VisibilityTimeout", seconds,
			"Total VisibilityTimeout for the message is beyond the limit [43200 seconds].")
	}
	m.visibleAt = now + seconds*second
	q.place(m, inFlight) // Again, for its place in the heap. With a timeout of 0 the next advance makes it ready.
	q.advance(now)
	q.changed(now)
	return nil
}

// pop takes the first ready message out of the queue, or returns nil.
func (q *queue) pop(now int64) *message {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.advance(now)
	m := q.ready.head
	if m != nil {
		q.place(m, outside)
	}
	return m
}

func (q *queue) purge(now int64) *apiError {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.deleted {
		return errQueueDoesNotExist
	}
	if q.purgedAt != 0 && now-q.purgedAt < purgeInterval {
		return errPurgeInProgress
	}
	q.purgedAt = now
	q.clear()
	return nil
}

// clear removes every message, by forgetting the structures that hold them.
func (q *queue) clear() {
	q.ready, q.hidden, q.inFlight = list{}, nil, 0
	clear(q.received)
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.deleted = true
	q.clear()
	for _, w := range q.waiters {
		w.wake <- struct{}{}
	}
	q.waiters = nil
	if q.timer != nil {
		q.timer.Stop()
	}
}

type counts struct{ ready, inFlight, delayed int }

func (q *queue) counts(now int64) counts {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.advance(now)
	return counts{q.ready.len, q.inFlight, len(q.hidden) - q.inFlight}
}

// changed lets one waiting receive try if there is something for it, and sets the timer. Each receive that ends calls
// it again, so one wake-up is passed on until either messages or waiters have run out.
func (q *queue) changed(now int64) {
	if len(q.waiters) == 0 {
		return
	}
	if q.ready.head != nil && q.inFlight < maxInFlight {
		w := q.waiters[0]
		q.waiters = slices.Delete(q.waiters, 0, 1)
		w.wake <- struct{}{}
	}
	if len(q.hidden) == 0 || q.timerAt != 0 && q.timerAt <= q.hidden[0].visibleAt {
		return
	}
	q.timerAt = q.hidden[0].visibleAt
	if wait := time.Duration(q.timerAt - now); q.timer == nil {
		q.timer = time.AfterFunc(wait, q.expire)
	} else {
		q.timer.Reset(wait)
	}
}

func (q *queue) expire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := clock()
	q.timerAt = 0
	q.advance(now)
	q.changed(now)
}

// enlist makes w wait for the next change; dismiss undoes that if no change has come.
func (q *queue) enlist(w *waiter) { q.waiters = append(q.waiters, w) }

func (q *queue) dismiss(w *waiter) {
	if i := slices.Index(q.waiters, w); i >= 0 {
		q.waiters = slices.Delete(q.waiters, i, i+1)
	}
}

// list is a doubly linked list through the messages themselves, so that one in the middle can be deleted at once.
type list struct {
	head, tail *message
	len        int
}

func (l *list) pushBack(m *message) {
	m.prev, m.next = l.tail, nil
	if l.tail == nil {
		l.head = m
	} else {
		l.tail.next = m
	}
	l.tail = m
	l.len++
}

func (l *list) remove(m *message) {
	if m.prev == nil {
		l.head = m.next
	} else {
		m.prev.next = m.next
	}
	if m.next == nil {
		l.tail = m.prev
	} else {
		m.next.prev = m.prev
	}
	m.prev, m.next = nil, nil
	l.len--
}

func (l *list) at(i int) *message {
	m := l.head
	for range i {
		m = m.next
	}
	return m
}

// hiddenHeap is a container/heap of messages by the time they become visible. Timeouts that are all alike arrive in
// order, and then a push moves nothing.
type hiddenHeap []*message

func (h hiddenHeap) Len() int           { return len(h) }
func (h hiddenHeap) Less(i, j int) bool { return h[i].visibleAt < h[j].visibleAt }
func (h hiddenHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapIndex, h[j].heapIndex = i, j
}

func (h *hiddenHeap) Push(m any) {
	m.(*message).heapIndex = len(*h)
	*h = append(*h, m.(*message))
}

func (h *hiddenHeap) Pop() any {
	last := len(*h) - 1
	m := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return m
}

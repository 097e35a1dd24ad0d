// Package failpoint has the places between two systems where a process can be made to die, to fail, to wait or to
// lose an answer, for the fault matrix in e2e/faults.
//
// Every call of Stampede to another system is a Step, with a point before it and one after it. In normal builds the
// points are nothing, and the compiler leaves them out. In builds with the tag failpoints they are those of gofail
// (go.etcd.io/gofail), set by the environment in its term language; the third pass here is the last of its process:
//
//	GOFAIL_FAILPOINTS='stampede/after-reserve=2*off->1*return("crash")'
//
// A term may return
//   - "crash": the process kills itself with SIGKILL,
//   - "error", at a point before a step: the step is not made, and its caller gets the error of a refused connection,
//   - "lost": the caller gets the error of an answer that did not come. After a step it has been made, before it not,
//   - "delay 3s", or another time: the caller waits, and goes on.
//
// With FAILPOINTS_AFTER=3s the passes of the first three seconds do not count.
//
// With FAILPOINTS_HASTE=10 what has its length from Wait takes a tenth of it, so that a run need not last for as long
// as the leases in it.
//
// What a point does it says on standard error, so that who has set it can see whether it was passed.
package failpoint

// Step is a call to another system.
type Step string

// The steps, by the system that they call.
const (
	Load        Step = "load"        // Redis: put a product on sale, after MySQL was read
	Reserve     Step = "reserve"     // Redis: move units from available to reserved
	Cancel      Step = "cancel"      // Redis: give the units of refused orders back
	Acknowledge Step = "acknowledge" // Redis: take orders that the queue has out of the outbox
	Claim       Step = "claim"       // Redis: claim orders left in the outbox; after it only when there were some
	Settle      Step = "settle"      // Redis: clear the reservations of decided orders
	Restock     Step = "restock"     // Redis: add units, after MySQL has them
	Return      Step = "return"      // Redis: put units back on sale that MySQL has taken back
	Send        Step = "send"        // queue: send orders
	Receive     Step = "receive"     // queue: receive messages; there is a point only after it, when some have come
	Delete      Step = "delete"      // queue: delete messages
	Decide      Step = "decide"      // MySQL: the deciding transaction as a whole; only before it
	Commit      Step = "commit"      // MySQL: the commit of that transaction
	// MySQL: the transaction that cancels orders which were not paid, as a whole; only before it
	Expire       Step = "expire"
	ExpireCommit Step = "expire-commit" // MySQL: the commit of that transaction
	Provider     Step = "provider"      // a provider of payments: any call
	Record       Step = "record"        // MySQL: the transaction that records what a provider has told; only before it
	RecordCommit Step = "record-commit" // MySQL: the commit of that transaction
	CloseCommit  Step = "close-commit"  // MySQL: the transaction that closes an attempt to pay
	RefundCommit Step = "refund-commit" // MySQL: the transaction that notes what became of a refund
	Lend         Step = "lend"          // Redis: take units out of a bucket that are to go to another
	Move         Step = "move"          // MySQL: the transaction that moves them, as a whole; only before it
	MoveCommit   Step = "move-commit"   // MySQL: the commit of that transaction
	Lent         Step = "lent"          // Redis: clear what was lent, after the receiver has got it
	Join         Step = "join"          // Redis: give users their places in a waiting room
	Call         Step = "call"          // Redis: call the next places
	Enter        Step = "enter"         // Redis: let users in whose places were called
)

// Steps lists all steps.
func Steps() []Step {
	return []Step{
		Load, Reserve, Cancel, Acknowledge, Claim, Settle, Restock, Return, Send, Receive, Delete,
		Decide, Commit, Expire, ExpireCommit,
		Provider, Record, RecordCommit, CloseCommit, RefundCommit, Lend, Move, MoveCommit, Lent,
		Join, Call, Enter,
	}
}

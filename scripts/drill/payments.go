package main

// paymentChanges break the rules of orders that must be paid, and of payments.
var paymentChanges = []change{
	{
		promise: "P9", what: "an order is paid that does not await it any more",
		file: "internal/till/pay.go", old: "if !hold.Payable(now) {", new: "if false {",
		pkg: "internal/till", test: "TestPayRefusals", says: "an overdue order: pay order",
	}, {
		promise: "P9", what: "an attempt that is paid is opened again",
		file: "internal/till/pay.go", old: "CASE state WHEN 'created' THEN 'open' ELSE state END", new: "'open'",
		pkg: "internal/till", test: "TestPaidInTime", says: "payment {",
	}, {
		promise: "P9", what: "an attempt may be paid for longer than its order waits",
		file: "internal/till/pay.go", old: "begun.State, begun.CreatedAt, begun.ExpiresAt = Created, now, hold.PayBy",
		new: "begun.State, begun.CreatedAt, begun.ExpiresAt = Created, now, hold.PayBy.Add(time.Hour)",
		pkg: "internal/till", test: "TestPaidInTime", says: "the attempt expires at",
	}, {
		promise: "P9", what: "a payment is known by the key of its notice, and not by its attempt",
		file: "internal/till/record.go", old: "if n.Kind == payment.Paid && prefix == \"\" {", new: "if false {",
		pkg: "internal/till", test: "TestPaidInTime", says: "recorded as refund, <nil>, want repeated",
	}, {
		promise: "P9", what: "a notice that is known is recorded again",
		file: "internal/till/record.go", old: "\t\treturn true, nil\n", new: "\t\treturn false, nil\n",
		pkg: "internal/till", test: "TestPaidInTime", says: "want repeated",
	}, {
		promise: "P9", what: "late money revives a cancelled order",
		file: "internal/till/record.go", old: "\t\treason = ReasonLate\n",
		new: "\t\toutcome, hold.State, hold.PaidBy = OutcomeCompleted, order.Completed, p.Number\n",
		pkg: "internal/till", test: "TestLateMoney", says: "recorded as completed",
	}, {
		promise: "P9", what: "money that completes nothing is kept",
		file: "internal/till/record.go", old: "\tif outcome == OutcomeRefund {\n",
		new: "\tif outcome == OutcomeRefund && !live {\n",
		pkg: "internal/till", test: "TestSecondPayment", says: "refunds of order",
	}, {
		promise: "P9", what: "a number that was issued counts as paid",
		file: "internal/till/record.go", old: "case n.Kind != payment.Paid:",
		new: "case n.Kind != payment.Paid && n.Kind != payment.Issued:",
		pkg: "internal/till", test: "TestPaidInTime", says: "issued: mismatch",
	}, {
		promise: "P9", what: "another amount completes an order",
		file: "internal/till/record.go", old: "case !p.fits(n):", new: "case false:",
		pkg: "internal/till", test: "TestMismatch", says: "completed, <nil>, want mismatch",
	}, {
		promise: "P9", what: "another amount completes an order, of payments that are recorded together",
		file: "internal/till/together.go", old: "!p.fits(n.Notice)", new: "false",
		pkg: "internal/till", test: "TestMismatch", says: "completed, <nil>, want mismatch",
	}, {
		promise: "P9", what: "of an order that is paid by payments recorded together, the other attempts stay open",
		file: "internal/till/together.go", old: "hold.Attempts != 1", new: "false",
		pkg: "internal/till", test: "TestOpenSecondAttempt", says: "due are []",
	}, {
		promise: "P9", what: "payments that are recorded together revive an order that another one has paid",
		file: "internal/till/together.go", old: "hold.State == order.AwaitingPayment || hold.State == order.Closing",
		new: `hold.State != ""`,
		pkg: "internal/till", test: "TestSecondPayment", says: "refunds of order",
	}, {
		promise: "P9", what: "a simulated payment counts outside of the test mode",
		file: "internal/till/record.go", old: "case n.Simulated && !t.TestMode:", new: "case false:",
		pkg: "internal/till", test: "TestStrangers", says: "simulated: completed",
	}, {
		promise: "P9", what: "the other attempts of a paid order stay open",
		file: "internal/till/sweep.go", old: "return hold.State == order.AwaitingPayment, err",
		new: "return hold.State != order.Closing, err",
		pkg: "internal/till", test: "TestOpenSecondAttempt", says: "the second attempt can be paid",
	}, {
		promise: "P9", what: "nobody looks at the other attempts of a paid order",
		file: "internal/till/record.go", old: "AND number <> ?\n\t\tAND state", new: "AND number = ?\n\t\tAND state",
		pkg: "internal/till", test: "TestOpenSecondAttempt", says: "due are []",
	}, {
		promise: "P9", what: "two workers sweep an attempt, or make a refund, at the same time",
		file: "internal/till/sweep.go",
		old:  "WHERE number = ? AND next_at = ?`, mysql.NullMillis(now.Add(lease)), []byte(number), next)",
		new:  "WHERE number = ? AND ? IS NOT NULL`, mysql.NullMillis(now.Add(lease)), []byte(number), next)",
		pkg:  "internal/till", test: "TestClaim", says: "claims of one attempt",
	}, {
		promise: "P9", what: "a refund without an answer counts as made",
		file: "internal/till/refund.go", old: "\tcase err == nil:\n\t\treturn t.finishRefund(",
		new: "\tcase !errors.Is(err, payment.ErrRefused):\n\t\treturn t.finishRefund(",
		pkg: "internal/till", test: "TestSecondPayment", says: "want [due]",
	}, {
		promise: "P9", what: "a refund is repeated under another number",
		file: "internal/till/refund.go", old: "payment.Refund{Number: row.Number,",
		new: "payment.Refund{Number: newNumber(),",
		pkg: "internal/till", test: "TestSecondPayment", says: "gave back 2000",
	}, {
		promise: "P9", what: "a refund that the provider refuses counts as made",
		file: "internal/till/refund.go", old: "t.finishRefund(ctx, number, RefundManual, err.Error(), \"\")",
		new: "t.finishRefund(ctx, number, RefundDone, err.Error(), \"\")",
		pkg: "internal/till", test: "TestRefusedRefund", says: "want [manual]",
	}, {
		promise: "P9", what: "a refund is made by hand without asking the provider",
		file: "internal/till/refund.go", old: "made, err := t.madeByProvider(ctx, row)",
		new: "made, err := false, error(nil)",
		pkg: "internal/till", test: "TestRefusedRefund", says: "though the provider had made it",
	}, {
		promise: "P9", what: "a provider is asked for a refund that it does not make",
		file: "internal/till/refund.go", old: "if !t.refunds(p) {", new: "if false {",
		pkg: "internal/till", test: "TestLateMoney", says: "want [manual]",
	}, {
		promise: "P9", what: "staff gives back more than was paid",
		file: "internal/till/refund.go", old: "if r.Amount > left || r.Amount == 0 {", new: "if r.Amount == 0 {",
		pkg: "internal/till", test: "TestStaffRefund", says: "too much: <nil>",
	}, {
		promise: "P9", what: "a notice of ECPay is not held to its signature",
		file: "internal/payment/ecpay/mac.go", old: "[]byte(want)) == 1", new: "[]byte(want)) < 2",
		pkg: "internal/payment/ecpay", test: "TestReadNoticeRefuses", says: "error <nil>",
	},

	{
		promise: "P10", what: "units come back while an attempt may yet be paid",
		file: "internal/ledger/holds.go", old: "case row.Attempts == 0:", new: "case true:",
		pkg: "internal/ledger", test: "TestCloseBeforeCancel", says: "units came back though the order may yet be paid",
	}, {
		promise: "P10", what: "an attempt is not counted by its order",
		file: "internal/till/pay.go", old: "\t\thold.Attempts++\n", new: "",
		pkg: "internal/till", test: "TestUnpaid", says: "is cancelled (<nil>), want closing",
	}, {
		promise: "P10", what: "money that comes while an order is closing is late",
		file: "internal/till/record.go", old: "case order.AwaitingPayment, order.Closing:",
		new: "case order.AwaitingPayment:",
		pkg: "internal/till", test: "TestForgottenNotice", says: "want completed",
	}, {
		promise: "P10", what: "a payment that is found when its attempt is closed is not recorded",
		file: "internal/till/sweep.go", old: "\t\t_, err := t.Record(ctx, p.Provider, n, FromClose, nil)\n",
		new: "\t\terr := t.markClosed(ctx, n.Attempt)\n",
		pkg: "internal/till", test: "TestForgottenNotice", says: "want completed",
	}, {
		promise: "P10", what: "a provider that does not answer counts as closed",
		file: "internal/till/sweep.go",
		old:  "\t\tstate, n, err = call(again)\n\t}\n",
		new:  "\t\tstate, n, err = call(again)\n\t}\n\tif err != nil {\n\t\tstate, err = payment.Lapsed, nil\n\t}\n",
		pkg:  "internal/till", test: "TestUnpaid", says: "is cancelled (<nil>), want closing",
	}, {
		promise: "P10", what: "an attempt that its provider does not know is not created once more",
		file: "internal/till/sweep.go", old: "if err == nil && state == payment.NotFound {", new: "if false {",
		pkg: "internal/till", test: "TestUnknownToTheProvider", says: "want cancelled",
	}, {
		promise: "P10", what: "an attempt is closed whose money is being taken",
		file: "internal/till/sweep.go", old: "if !p.CapturedAt.IsZero() { // somebody", new: "if false { // somebody",
		pkg: "internal/till", test: "TestCapture", says: "is cancelled (<nil>), want closing",
	}, {
		promise: "P10", what: "units that came back leave no reminder",
		file: "internal/ledger/holds.go", old: "if err := insertReturned(ctx, tx, returned); err != nil {",
		new: "if err := error(nil); err != nil {",
		pkg: "internal/ledger", test: "TestHeldOrder", says: "'returned_version' cannot be null",
	}, {
		promise: "P10", what: "no worker looks for reminders",
		file: "worker/expire.go", old: "err := w.bringReturned(ctx)", new: "err := error(nil)",
		pkg: "worker", test: "TestExpireAfterACrash", says: "script ran false, by reconcile false",
	}, {
		promise: "P10", what: "reconcile compares while units are on their way back",
		file: "internal/reconcile/reconcile.go", old: "if len(snapshot.Returning) > 0 {", new: "if false {",
		pkg: "worker", test: "TestExpireAfterACrash", says: "reminders are left",
	}, {
		promise: "P10", what: "what came back still counts for its buyer",
		file: "internal/ledger/holds.go", old: "if product.Counted == product.Version {", new: "if false {",
		pkg: "internal/ledger", test: "TestReturnedCounts", says: "want 2",
	}, {
		promise: "P10", what: "settling gives back the units of an order that is to be paid",
		file: "internal/order/order.go", old: "return s != Pending && s != Failed", new: "return s == Completed",
		pkg: "worker", test: "TestExpire", says: "before: {",
	},
}

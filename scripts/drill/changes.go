package main

import "slices"

// changes are the breaks, by the promise that rests on what they break.
var changes = slices.Concat(coreChanges, paymentChanges, pointsChanges)

// coreChanges break what is around an order that need not be paid.
var coreChanges = []change{
	{
		promise: "P1", what: "no row lock",
		file: "internal/ledger/products.go", old: "FROM products WHERE id = ? FOR UPDATE", new: "FROM products WHERE id = ?",
		pkg: "internal/ledger", test: "TestDecideConcurrently", says: "orders of product 1: ",
	}, {
		promise: "P1", what: "MySQL completes an order for one unit more than is left",
		file: "internal/ledger/decide.go", old: "case o.Quantity > stock:", new: "case o.Quantity > stock+1:",
		pkg: "internal/ledger", test: "TestDecide", says: "products_stock_not_negative",
	}, {
		promise: "P1", what: "an order does not see those before it in the same transaction",
		file: "internal/ledger/decide.go", old: "\t\t\tstock -= o.Quantity\n", new: "",
		pkg: "internal/ledger", test: "TestDecide", says: "got [\"completed\"",
	}, {
		promise: "P1", what: "Redis reserves for each order of a call what is left for the first",
		file: "lua/reserve.lua", old: "elseif stock - taken < quantity then", new: "elseif stock < quantity then",
		pkg: "internal/stock", test: "TestScripts/reserve_batch", says: "outcomes",
	},

	{
		promise: "P2", what: "202 before the queue has acknowledged the order",
		file: "edge/send.go", old: "\tenvelopes := s.pack(parcels)\n",
		new: "\tenvelopes := s.pack(parcels)\n\tfor _, p := range parcels {\n\t\tfor _, t := range p.tickets {\n" +
			"\t\t\tt.answer <- &answer{code: accepted, order: p.order, sale: p.sale}\n\t\t}\n" +
			"\t\tp.tickets = nil\n\t}\n",
		pkg: "edge", test: "TestNoAnswerBeforeTheQueueHasTheOrder", says: "though the queue acknowledges after",
	}, {
		promise: "P2", what: "an order of unknown outcome is cancelled",
		file: "edge/send.go", old: "s.finishAll(e.parcels, problem.OutcomeUnknown)",
		new: "refused = append(refused, e.parcels...)",
		pkg: "edge", test: "TestUnknownIsNeverCancelled", says: "queue_unavailable",
	}, {
		promise: "P2", what: "a refusal makes a lost answer forgotten",
		file: "internal/queue/send.go", old: "if unknown[i] {", new: "if false {",
		pkg: "internal/queue", test: "TestARefusalAfterAnUnknownAttemptIsUnknown", says: "outcome",
	}, {
		promise: "P2", what: "a claimed order is cancelled",
		file: "lua/cancel.lua", old: "elseif not entry or is_claimed(entry) then", new: "elseif not entry then",
		pkg: "internal/stock", test: "TestScripts/cancel_too_late", says: "a cancel that comes too late has changed the keys",
	}, {
		promise: "P2", what: "a retry is told 202 of an order that is still in the outbox",
		file: "edge/reserve.go", old: "case result.Outcome == stock.Reserved || result.Unsent:", new: "case result.Outcome == stock.Reserved:",
		pkg: "edge", test: "TestRetrySendsWhatAnEdgeLeftBehind", says: "the queue holds []",
	}, {
		promise: "P2", what: "the message is deleted before the commit",
		file: "worker/decide.go", old: "\tvar decisions []order.Decision\n", new: "\tw.done(jobs)\n\tvar decisions []order.Decision\n",
		pkg: "worker", test: "TestADecisionIsSettledWhenRedisIsBack", says: "the messages are not kept and hidden",
	}, {
		promise: "P2", what: "the relay takes an order without acknowledgement for sent",
		file: "worker/relay.go", old: "if r.Outcome != queue.Sent {", new: "if r.Outcome == queue.Refused {",
		pkg: "worker", test: "TestTheRelaySendsAgainWhatMayBeLost", says: "0 orders are in the outbox",
	}, {
		promise: "P2", what: "a dead letter is deleted before its copy is there",
		file: "worker/deadletters.go", old: "\t\t// The copy comes first: a message that is there twice does no harm.\n",
		new: "\t\t_ = dead.Delete(ctx, []string{m.Receipt})\n",
		pkg: "worker", test: "TestADeadLetterStaysUntilItsCopyIsThere", says: "the dead letter is gone and has no copy",
	}, {
		promise: "P2", what: "the orders of a message that killed its workers fail without being looked at",
		file: "worker/deadletters.go", old: "\town := !first\n\tif first {", new: "\town := true\n\tif first && !own {",
		pkg: "worker", test: "TestTheOrdersOfADeadLetterAreDecided", says: "dead_letter",
	}, {
		promise: "P2", what: "an entry that the queue refused counts as sent with its batch",
		file: "internal/queue/send.go",
		old:  "results[indexes[n]] = Result{outcome, refusal}",
		new:  "_, _, results[indexes[n]] = outcome, refusal, Result{Outcome: Sent}",
		pkg:  "internal/queue", test: "TestTheOutcomeOfEachEntryIsTrue", says: "and is on the queue 0 times",
	}, {
		promise: "P2", what: "who could not cancel an order says that nothing was ordered",
		file: "edge/send.go", old: "\t\tif cancelled[p.order.ID] {\n", new: "\t\tif true {\n",
		pkg: "edge", test: "TestClaimedOrderIsNotCancelled", says: "queue_unavailable",
	}, {
		promise: "P2", what: "a full Redis refuses the settling that would free it",
		file: "lua/settle.lua", old: "#!lua flags=allow-oom\n", new: "",
		pkg: "internal/stock", test: "TestFullRedisDrains", says: "settle orders of product",
	}, {
		promise: "P2", what: "what was decided cannot be settled in a full Redis",
		file: "lua/settle.lua", old: "#!lua flags=allow-oom\n", new: "#!lua\n",
		pkg: "internal/stock", test: "TestFullRedisDrains", says: "settle orders of product",
	}, {
		promise: "P2", what: "a batch of which the queue has a part leaves the outbox",
		file: "edge/send.go", old: "p.batch.open.Store(true)", new: "p.batch.open.Store(false)",
		pkg: "edge", test: "TestABatchThatIsSentInPart", says: "0 orders are in the outbox",
	}, {
		promise: "P2", what: "the relay takes a batch of which the queue has a part out of the outbox",
		file: "worker/relay.go", old: "return !sent[o.ID]", new: "return false",
		pkg: "worker", test: "TestTheRelayKeepsABatchThatIsSentInPart", says: "0 orders are in the outbox",
	}, {
		promise: "P2", what: "the connection to the queue is closed under answers, and the messages in them are lost for a minute",
		file: "internal/queue/queue.go", old: "sqs.WithAPIOptions(KeepConnections, q.measure)", new: "sqs.WithAPIOptions(q.measure)",
		pkg: "internal/queue", test: "TestConnectionsAreKept", says: "requests, one after the other, took",
	}, {
		promise: "P2", what: "nobody notices that MySQL has lost commits, and their units are sold again",
		file: "internal/reconcile/reconcile.go", old: "if l.LostCommits || l.Seen > snapshot.Product.Version {", new: "if false {",
		pkg: "worker", test: "TestLostCommitsAreNotSoldAgain", says: "units are available, want",
	}, {
		promise: "P2", what: "lost commits are forgotten when MySQL has counted on",
		file: "lua/settle.lua", old: "    redis.call('HSET', sale_key, LOST_COMMITS, 1)\n", new: "",
		pkg: "worker", test: "TestLostCommitsAreNotSoldAgain", says: "units are available, want",
	}, {
		promise: "P2", what: "an error that nobody has listed counts as an order's own fault",
		file: "internal/mysql/errors.go", old: "\t\treturn Systemic\n\t}\n\tif _, own",
		new: "\t\treturn Own\n\t}\n\tif _, own",
		pkg: "internal/mysql", test: "TestClassify", says: "own, want systemic",
	}, {
		promise: "P2", what: "what every order fails for counts as each one's own fault",
		file: "worker/blame.go", old: "Rehearse(ctx, in.stockID); sound != nil", new: "Rehearse(ctx, in.stockID); sound != nil && false",
		pkg: "worker", test: "TestWhatEveryOrderFailsForIsNoOrdersFault", says: "it has stopped receiving",
	}, {
		promise: "P2", what: "a reason that nobody has foreseen is never an order's own",
		file: "worker/blame.go", old: "class == mysql.Own || in.refusals == maxRefusals", new: "class == mysql.Own",
		pkg: "worker", test: "TestAnUnforeseenReasonOfOneOrder", says: "the queue is not empty",
	}, {
		promise: "P2", what: "a product of which no order can be decided stops all others",
		file: "worker/blame.go", old: "in.asked && mysql.Answered(sound)", new: "in.asked && mysql.Answered(sound) && false",
		pkg: "worker", test: "TestABrokenProductStopsNoOther", says: "receiving has stopped more than once",
	}, {
		promise: "P2", what: "a locked product holds all that a worker may hold",
		file: "worker/share.go", old: "if w.held.of(stockID) <= maxShare {", new: "if true {",
		pkg: "worker", test: "TestALockedProductStopsNoOther", says: "those of the other product are settled",
	}, {
		promise: "P2", what: "an order on the queue is denied when Redis has lost its data",
		file: "edge/status.go", old: "!known && !mayBeUnseen(id)", new: "!known",
		pkg: "edge", test: "TestAnOrderThatNobodyHasSeen", says: "want 404 order_not_seen_yet",
	}, {
		promise: "P2", what: "completed orders are not kept for the case that MySQL loses them",
		file: "lua/settle.lua", old: "  redis.call('RPUSH', completed_key, unpack(kept))\n", new: "",
		pkg: "ctl", test: "TestLostOrders", says: "lost orders:",
	}, {
		promise: "P2", what: "an edge takes orders that the workers beside it cannot read",
		file: "edge/upgrade.go", old: "case workers == 0:", new: "default:",
		pkg: "edge", test: "TestUpgrade", says: "beside a worker of an older version",
	}, {
		promise: "P2", what: "a MySQL that may lose commits is taken without a word",
		file: "internal/mysql/durability.go", old: "if d.FlushLog != \"\" && d.FlushLog != \"1\" {", new: "if d.FlushLog == \"off\" {",
		pkg: "worker", test: "TestAMySQLThatMayLoseCommits", says: "stampede_mysql_may_lose_commits is 0, want 1",
	}, {
		promise: "P2", what: "reconcile settles an order that is being redriven by its old decision",
		file: "internal/reconcile/repair.go", old: "settled, err := r.Redis.SettleLeft(", new: "settled, err := r.Redis.Settle(",
		pkg: "worker", test: "TestReconcileSparesWhatIsRedriven", says: "Redis has {Loaded:true",
	}, {
		promise: "P7", what: "a redrive keeps the units that it has taken for an order that was decided meanwhile",
		file: "ctl/deadletters.go", old: "if outcome == stock.Reserved {", new: "if outcome == stock.Reserved && false {",
		pkg: "ctl", test: "TestRedriveOfATwin", says: "Redis has {Loaded:true",
	},

	{
		promise: "P3", what: "the order's row is not looked at",
		file: "internal/ledger/decide.go", old: "if row, ok := d.decided[o.ID]; ok {", new: "if row, ok := d.decided[o.ID]; ok && false {",
		pkg: "internal/ledger", test: "TestDecide", says: "another transaction inserted the row first",
	}, {
		promise: "P3", what: "who loses the race to insert a row does not read it",
		file: "internal/mysql/db.go", old: "if Classify(err) != Transient {", new: "if Classify(err) != Transient || errors.Is(err, ErrLostRace) {",
		pkg: "internal/ledger", test: "TestSameOrderUnderTwoProducts", says: "another transaction inserted the row first",
	}, {
		promise: "P3", what: "the rows that an insert has met are not looked for",
		file: "internal/ledger/decide.go", old: "\tif errors.Is(err, errKnown) {\n", new: "\tif len(orders) == 1 {\n",
		pkg: "internal/ledger", test: "TestDecide", says: "has a row already",
	}, {
		promise: "P3", what: "a settle whose answer is lost is repeated as fresh",
		file: "internal/stock/settle.go", old: "again[i].Fresh = false", new: "again[i].Fresh = true",
		pkg: "worker", test: "TestASettleWhoseAnswerIsLostIsNotRepeatedAsFresh", says: "want 88 available",
	}, {
		promise: "P3", what: "no tombstone",
		file: "lua/settle.lua", old: "if not fresh[i] then", new: "if false then",
		pkg: "internal/stock", test: "TestScripts/settle_leaves_a_mark", says: "late: got",
	}, {
		promise: "P3", what: "settle leaves the reservation, and each delivery gives it back again",
		file: "lua/settle.lua", old: "redis.call('HDEL', reserved_key, unpack(done))\n", new: "",
		pkg: "internal/stock", test: "TestScripts/settle_reserved", says: "settled again",
	}, {
		promise: "P3", what: "who comes late with a transfer does not look how it was decided",
		file: "internal/ledger/transfers.go", old: "FROM moves WHERE id = ?`", new: "FROM moves WHERE id = ? AND 1 = 0`",
		pkg: "internal/ledger", test: "TestTransfer", says: "again: ",
	}, {
		promise: "P3", what: "a completed order is redriven",
		file: "internal/ledger/redrive.go", old: "case row.Status != order.Failed || order.Reason(row.FailedReason.String) != order.DeadLetter:", new: "case row.Status == order.Pending:",
		pkg: "internal/ledger", test: "TestRedrive", says: "an order that did not fail as a dead letter",
	}, {
		promise: "P3", what: "reconcile settles as if it had decided",
		file: "internal/reconcile/repair.go", old: "order.Decision{Record: record}", new: "order.Decision{Record: record, Fresh: true}",
		pkg: "worker", test: "TestReconcileSettlesWhatIsDecided", says: "after a late settle Redis has",
	},

	{
		promise: "P4", what: "no version rule",
		file: "lua/settle.lua", old: "    if version > loaded_version then", new: "    if true then",
		pkg: "internal/stock", test: "TestScripts/correct", says: "stock after an old decision",
	}, {
		promise: "P4", what: "a load across a loss of Redis",
		file: "lua/load.lua", old: " or epoch ~= known_epoch then", new: " then",
		pkg: "internal/stock", test: "TestScripts/load_across_a_loss", says: "after 2 reads",
	}, {
		promise: "P4", what: "a row is loaded that a settle has shown to be out of date",
		file: "lua/load.lua", old: "tonumber(version) < seen or ", new: "",
		pkg: "internal/stock", test: "TestScripts/load_out_of_date", says: "Load: <nil>",
	}, {
		promise: "P4", what: "a restock is applied twice in Redis",
		file: "lua/restock.lua", old: " or applied or ", new: " or ",
		pkg: "internal/stock", test: "TestScripts/restock", says: "the same again: Restock = true",
	}, {
		promise: "P4", what: "a correction by an old look",
		file: "lua/prelude.lua", old: " and known[2] == changes", new: "",
		pkg: "internal/stock", test: "TestScripts/correct", says: "corrected by an old look",
	}, {
		promise: "P4", what: "a redrive without a reservation",
		file: "lua/readmit.lua", old: "redis.call('DECRBY', stock_key, quantity)\n", new: "",
		pkg: "internal/stock", test: "TestScripts/readmit", says: "stock, reserved, bought",
	}, {
		promise: "P4", what: "the audit takes Redis's word for its stock",
		file: "internal/audit/audit.go", old: "level.Loaded && held != s.stock", new: "false && held != s.stock",
		pkg: "internal/audit", test: "TestCompare", says: "5 in MySQL",
	}, {
		promise: "P4", what: "the epoch is got after MySQL is read",
		file: "internal/stock/load.go",
		old:  "\t\tepoch, err := s.epoch(ctx, stockID)\n\t\tif err != nil {\n\t\t\treturn false, err\n\t\t}\n\t\tp, err := read(ctx)\n",
		new:  "\t\tp, err := read(ctx)\n\t\tif err != nil {\n\t\t\treturn false, err\n\t\t}\n\t\tepoch, err := s.epoch(ctx, stockID)\n",
		pkg:  "internal/stock", test: "TestScripts/load_across_a_loss", says: "after 2 reads",
	}, {
		promise: "P4", what: "MySQL does not look whether a restock was made before",
		file: "internal/ledger/restock.go", old: "AND reason IN (?, ?) AND ref = ? ORDER BY product_id`", new: "AND reason IN (?, ?) AND ref = ? AND 1 = 0`",
		pkg: "internal/ledger", test: "TestRestock", says: "again: ",
	},

	{
		promise: "P5", what: "no settle",
		file: "worker/decide.go", old: "\t\tw.settles.Add(stockID, settlement{decisions, jobs})\n", new: "\t\tw.done(jobs)\n",
		pkg: "worker", test: "TestStopFinishesWhatIsUnderWay", says: "it has stopped with orders reserved",
	}, {
		promise: "P5", what: "relays send what another has claimed",
		file: "lua/claim.lua", old: " and tonumber(claimed_at) <= oldest then", new: " then",
		pkg: "internal/stock", test: "TestScripts/claim", says: "a claim of what another has claimed",
	}, {
		promise: "P5", what: "the claim of a relay that died is never taken over",
		file: "lua/claim.lua", old: "tonumber(claimed_at) <= oldest then", new: "claimed_at == '0' then",
		pkg: "internal/stock", test: "TestScripts/claim", says: "an old claim: got",
	}, {
		promise: "P5", what: "the orders of a dead letter keep their reservations",
		file: "worker/deadletters.go", old: "_, err = w.stock.Settle(work, o.StockID, []order.Decision{decision})", new: "err = nil",
		pkg: "worker", test: "TestTheOrdersOfADeadLetterFail", says: "Redis has",
	}, {
		promise: "P5", what: "reconcile does not settle what is decided",
		file: "internal/reconcile/reconcile.go", old: "r.settings, r.restocks, r.transfers, r.unsettled, r.lost,", new: "r.settings, r.restocks, r.transfers, r.lost,",
		pkg: "worker", test: "TestReconcileSettlesWhatIsDecided", says: "Redis has",
	}, {
		promise: "P5", what: "a product that is loaded and not listed is never looked for",
		file: "worker/reconcile.go", old: "errs = append(errs, err, w.searchProducts(ctx))", new: "errs = append(errs, err)",
		pkg: "worker", test: "TestAProductThatIsNotListedIsFound", says: "of 3 orders in the outbox 0 were relayed",
	}, {
		promise: "P5", what: "a product that is taken out of the list while it is loaded stays out",
		file: "internal/stock/load.go", old: "if err := s.remember(ctx, p.ID); err != nil {", new: "if err := error(nil); err != nil {",
		pkg: "internal/stock", test: "TestScripts/load_meets_forget", says: "forgotten while it was loaded: in the set: got",
	}, {
		promise: "P5", what: "reconcile does not finish the moves of an edge that has died",
		file: "internal/reconcile/reconcile.go", old: "r.settings, r.restocks, r.transfers, r.unsettled, r.lost,", new: "r.settings, r.restocks, r.unsettled, r.lost,",
		pkg: "edge", test: "TestLateMoverChangesNothing", says: "want unfinished_move",
	}, {
		promise: "P4", what: "a correction takes what it gets, not all or none",
		file: "lua/transfer.lua", old: " or all_or_none and units < wanted", new: "",
		pkg: "shop", test: "TestCorrection", says: "a correction that was refused",
	}, {
		promise: "P4", what: "units that came back to MySQL come back to Redis each time that they are brought",
		file: "lua/return.lua",
		old:  "SADD', settled_key, RETURN_MARK .. id) == 1", new: "SADD', settled_key, RETURN_MARK .. id)",
		pkg: "internal/stock", test: "TestScripts/return", says: "again, with another: got",
	}, {
		promise: "P4", what: "units come back that the loaded stock has already",
		file: "lua/return.lua",
		old:  "if tonumber(returned_at) > version then", new: "if true then",
		pkg: "internal/stock", test: "TestScripts/return", says: "all that the loaded stock has: got",
	}, {
		promise: "P4", what: "a row of before the units came back is loaded",
		file: "lua/return.lua",
		old:  "if newest_text then", new: "if false then",
		pkg: "internal/stock", test: "TestScripts/return_before_load", says: "seen",
	}, {
		promise: "P4", what: "an audit that has found something leaves a checkpoint behind",
		file: "internal/ledger/audit.go",
		old:  "\tif a.unsound() {\n\t\treturn audits, nil\n", new: "\tif false {\n\t\treturn audits, nil\n",
		pkg: "internal/ledger", test: "TestACheckpointIsOnlyOfSoundBooks", says: "do not match the books",
	}, {
		promise: "P4", what: "books that do not add up are archived",
		file: "internal/ledger/archive.go", old: "\t\tif a.unsound() {\n", new: "\t\tif false {\n",
		pkg: "internal/ledger", test: "TestArchiveRefuses", says: "of books that do not add up: error",
	}, {
		promise: "P4", what: "an opening balance leaves out what the archived orders took",
		file: "internal/ledger/archive.go", old: "was.Balance+f.delta", new: "was.Balance",
		pkg: "internal/ledger", test: "TestArchive", says: "ledger",
	}, {
		promise: "P5", what: "reconcile does not send lost orders again",
		file: "internal/reconcile/reconcile.go", old: "r.settings, r.restocks, r.transfers, r.unsettled, r.lost,", new: "r.settings, r.restocks, r.transfers, r.unsettled,",
		pkg: "worker", test: "TestReconcileSendsLostOrdersAgain", says: "0 orders are on the queue",
	}, {
		promise: "P5", what: "an entry stays in the outbox though none of its orders is reserved",
		file: "lua/claim.lua", old: "        gone[#gone + 1] = name\n", new: "",
		pkg: "internal/stock", test: "TestScripts/reservations_of_an_older_program", says: "entries: got",
	},

	{
		promise: "P6", what: "settle publishes no notice",
		file: "lua/settle.lua", old: "  if given > taken then", new: "  if false then",
		pkg: "internal/stock", test: "TestScripts/notices", says: "settle failed: a notice: false, want true",
	}, {
		promise: "P6", what: "units that come back to MySQL publish no notice",
		file: "lua/return.lua",
		old:  "  reopened(stock_key)\n", new: "",
		pkg: "internal/stock", test: "TestScripts/notices", says: "return: a notice: false, want true",
	}, {
		promise: "P6", what: "edges do not hear notices",
		file: "edge/server.go", old: "\te.refusalCache.reopen(n.Reopened...)\n", new: "",
		pkg: "edge", test: "TestReopened", says: "want 250ms",
	}, {
		promise: "P6", what: "a bucket is sold out though others have units",
		file: "edge/borrow.go", old: "total, transfers := unitsOf(counts, refused)",
		new: "total, transfers := max(counts[bucket].Available, 0), counts[bucket].Transfers",
		pkg: "edge", test: "TestLastUnits", says: "want 202",
	}, {
		promise: "P6", what: "units that come back are for sale to the buyers of their bucket only",
		file: "edge/refusalcache.go", old: "c.opened.Add(id.Product(), now)", new: "c.opened.Add(order.ProductID(id), now)",
		pkg: "edge", test: "TestReopenedForAllBuckets", says: "the buyers of another bucket are refused",
	}, {
		promise: "P6", what: "an edge remembers sold out for ever",
		file: "edge/refusalcache.go", old: "case !ok || now.Sub(known.at) > refusalTTL:", new: "case !ok:",
		pkg: "edge", test: "TestClosed", says: "an answer that is too old",
	}, {
		promise: "P6", what: "an answer from before the units came back is believed",
		file: "edge/refusalcache.go", old: "case c.reopened(stockID, known.at):", new: "case false:",
		pkg: "edge", test: "TestClosed", says: "an answer from before they came back",
	}, {
		promise: "P6", what: "an answer counts from when it came, not from when Redis was asked",
		file: "edge/reserve.go", old: "r.refusalCache.learn(stockID, left.sale, said.asked)", new: "r.refusalCache.learn(stockID, left.sale, time.Now())",
		pkg: "edge", test: "TestAnswerOnItsWay", says: "who asks after units came back is told",
	},

	{
		promise: "P7", what: "Redis does not count the orders before it in the same call",
		file: "lua/reserve.lua", old: "    counts[user] = counts[user] + quantity\n", new: "",
		pkg: "internal/stock", test: "TestScripts/reserve_batch", says: "outcomes",
	}, {
		promise: "P7", what: "an edge that goes by another number of buckets is served",
		file: "lua/reserve.lua", old: "if buckets ~= callers_buckets then", new: "if false then",
		pkg: "internal/stock", test: "TestScripts/other_buckets", says: "an order by another number of buckets has changed the keys",
	}, {
		promise: "P7", what: "MySQL does not judge the limit",
		file: "internal/ledger/decide.go", old: "d.bought[o.UserID]+o.Quantity > d.product.LimitPerUser:", new: "o.Quantity > d.product.LimitPerUser:",
		pkg: "internal/ledger", test: "TestDecide", says: `got ["completed" "completed" "completed" "completed"]`,
	}, {
		promise: "P7", what: "a failed order still counts for its buyer",
		file: "lua/settle.lua", old: "      bought[#bought + 1] = {user, -units}\n", new: "",
		pkg: "internal/stock", test: "TestScripts/settle_reserved", says: "failed just now",
	}, {
		promise: "P7", what: "a correction of the stock is taken for one of what buyers have",
		file: "lua/settle.lua",
		old:  "local born = tonumber(sale[4]) or loaded_version", new: "local born = loaded_version",
		pkg: "internal/stock", test: "TestScripts/correct", says: "bought: got",
	}, {
		promise: "P7", what: "what is returned before it is settled is forgotten",
		file: "lua/prelude.lua",
		old:  "user, units) == 0 then", new: "user, units) <= 0 then",
		pkg: "internal/stock", test: "TestScripts/return_of_what_is_not_settled", says: "stock, bought: got",
	}, {
		promise: "P7", what: "returned units are taken off what a buyer bought since",
		file: "lua/return.lua",
		old:  "if tonumber(taken_at) > born then", new: "if true then",
		pkg: "internal/stock", test: "TestScripts/return", says: "bought: got",
	}, {
		promise: "P7", what: "units whose reservation was lost do not count for their buyer",
		file: "lua/settle.lua", old: "    bought[#bought + 1] = {user, quantity}\n", new: "",
		pkg: "internal/stock", test: "TestScripts/settle_without_reservation", says: "completed, newer than the load",
	}, {
		promise: "P7", what: "what is decided is not added to what its buyers have bought",
		file: "internal/ledger/decide.go",
		old:  "\treturn addBought(ctx, tx, d.product.ID, d.sold)\n", new: "\treturn nil\n",
		pkg: "internal/ledger", test: "TestALimitCountsWhatWasBoughtBefore", says: "completed, want limit_exceeded",
	}, {
		promise: "P7", what: "what was sold without a limit does not count for one that is set later",
		file: "internal/ledger/decide.go", old: "for product.Counted < product.Version {", new: "for false {",
		pkg: "internal/ledger", test: "TestALimitOfAProgramOfBefore", says: `decided ["completed" "completed"]`,
	}, {
		promise: "P7", what: "the snapshot is taken before the product is locked",
		file: "internal/ledger/decide.go",
		old:  "\tproduct, err := lockProduct(ctx, tx, stockID)\n",
		new:  "\t_, err := readRows(ctx, tx, []order.OrderID{orders[0].ID})\n\tif err != nil {\n\t\treturn nil, err\n\t}\n\tproduct, err := lockProduct(ctx, tx, stockID)\n",
		pkg:  "internal/ledger", test: "TestLimitConcurrently", says: "the limit is 3",
	},

	{
		promise: "P8", what: "an idempotency record without the fingerprint",
		file: "lua/reserve.lua", old: "if tonumber(first_quantity) ~= quantity or", new: "if false or",
		pkg: "edge", test: "TestRetry", says: "idempotency_mismatch",
	}, {
		promise: "P8", what: "the idempotency record is not written",
		file: "lua/reserve.lua", old: "    redis.call('HSET', idem_key, unpack(idem_set))\n", new: "",
		pkg: "edge", test: "TestRetriesInACrowd", says: "got 202",
	}, {
		promise: "P8", what: "the record of a cancelled order stays",
		file: "lua/cancel.lua", old: "      redis.call('HDEL', KEYS[k], field)\n", new: "",
		pkg: "edge", test: "TestQueueRefuses", says: "idem:",
	}, {
		promise: "P8", what: "MySQL's keys are not looked at",
		file: "internal/ledger/decide.go", old: "holder := d.holders[scope]", new: "holder := (*keyHolder)(nil)",
		pkg: "internal/ledger", test: "TestDecide", says: "another transaction inserted the row first",
	}, {
		promise: "P8", what: "no unique index on a user's keys",
		file: "internal/mysql/migrations/00021_order_keys.sql", old: "PRIMARY KEY (product", new: "KEY (product",
		pkg: "internal/ledger", test: "TestIdempotencyRace", says: "orders hold key",
	}, {
		promise: "P8", what: "MySQL keeps a key for ever",
		file: "internal/ledger/decide.go", old: "\tcase !outlives(usedAt, holder.usedAt):\n", new: "\tcase true:\n",
		pkg: "internal/ledger", test: "TestKeysOfAnotherDay", says: "is idempotency_conflict again",
	}, {
		promise: "P8", what: "in MySQL a key is its user's for all products",
		file: "internal/mysql/migrations/00021_order_keys.sql",
		old:  "PRIMARY KEY (product_id, user_id, idempotency_key),", new: "PRIMARY KEY (user_id, idempotency_key),",
		pkg: "internal/ledger", test: "TestKeysOfTwoProducts", says: "another transaction inserted the row first",
	}, {
		promise: "P8", what: "a key is forgotten when its period is over",
		file: "lua/reserve.lua", old: "found[k] or found_before[k] or found_old[k]", new: "found[k] or found_old[k]",
		pkg: "internal/stock", test: "TestKeyLifetime", says: "ms old: ",
	}, {
		promise: "P8", what: "a key outlives its lifetime",
		file: "lua/reserve.lua", old: "if now - tonumber(first_at) >= lifetime then", new: "if false then",
		pkg: "internal/stock", test: "TestKeyLifetime", says: "ms old: ",
	}, {
		promise: "P8", what: "the keys of edges of the version before are not looked at",
		file: "lua/reserve.lua", old: "found[k] or found_before[k] or found_old[k]", new: "found[k] or found_before[k]",
		pkg: "internal/stock", test: "TestScripts/reservations_of_an_older_program", says: "replayed: got",
	}, {
		promise: "P8", what: "a key is not its user's own",
		file: "lua/reserve.lua", old: "field_of[i] = users[i] .. ':' .. keys[i]", new: "field_of[i] = keys[i]",
		pkg: "internal/stock", test: "TestScripts/reserve_refuses", says: "another user's key: got",
	}, {
		promise: "P8", what: "a key stands for an order however it is paid",
		file: "lua/reserve.lua", old: "(string.sub(first_price, -1) == POINTS) ~= by_points", new: "false",
		pkg: "edge", test: "TestPayWithPoints", says: "want 422 idempotency_mismatch",
	},
}

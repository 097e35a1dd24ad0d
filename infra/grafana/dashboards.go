package main

import (
	"fmt"
	"slices"
	"strings"
)

// values are those of labels after which series are called, as far as they have a colour.
var values = map[string][]string{
	"{{code}}": {"ok", "sold_out", "limit_exceeded", "rate_limited", "queue_unavailable", "stock_unavailable",
		"outcome_unknown", "internal_error"},
	"{{status}}":  {"completed", "failed"},
	"{{outcome}}": {"sent", "refused", "unknown", "moved", "empty", "failed"},
	"{{system}}":  {"redis", "sqs", "mysql"},
	"{{state}}":   {"visible", "in_flight", "delayed", "idle", "used"},
}

// named are the names of a panel's series that have a colour.
func (p panel) named() (names []string) {
	for _, q := range p.queries {
		if labelled, ok := values[q.legend]; ok {
			names = append(names, labelled...)
		} else if colours[q.legend] != "" {
			names = append(names, q.legend)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// graph is a panel of a third of the width.
func graph(title, unit, description string, queries ...query) panel {
	return panel{title: title, unit: unit, description: description, width: 8, queries: queries}
}

// half is a panel of half of the width.
func half(p panel) panel { p.width = 12; return p }

func stacked(p panel) panel { p.stack = true; return p }

// bound draws a line, where an alert fires.
func bound(bad float64, p panel) panel { p.bad = bad; return p }

// number is a panel with one value, one eighth of the width.
func number(title, unit, description string, warn, bad float64, expr string) panel {
	return panel{title: title, unit: unit, description: description, width: 3, stat: true, warn: warn, bad: bad,
		queries: []query{{expr, ""}}}
}

// rate is the increase per second of a counter, by labels, or by none.
func rate(by, selector string) string {
	if by == "" {
		return fmt.Sprintf("sum(rate(%s[$__rate_interval]))", selector)
	}
	return fmt.Sprintf("sum by (%s) (rate(%s[$__rate_interval]))", by, selector)
}

// quantile is that of a histogram, by labels, or by none. The selector is that of its buckets.
func quantile(q float64, by, selector string) string {
	if by != "" {
		by += ", "
	}
	return fmt.Sprintf("histogram_quantile(%v, sum by (%sle) (rate(%s[$__rate_interval])))", q, by, selector)
}

// percentiles are the 50th and 99th of a histogram.
func percentiles(selector string) []query {
	return []query{{quantile(0.5, "", selector), "p50"}, {quantile(0.99, "", selector), "p99"}}
}

// mean is that of a histogram's observations.
func mean(histogram, matchers string) string {
	return fmt.Sprintf("%s / %s", rate("", histogram+"_sum"+matchers), rate("", histogram+"_count"+matchers))
}

// mine limits a query to the instances that were chosen. More matchers may follow.
func mine(job string, more ...string) string {
	return "{" + strings.Join(append([]string{fmt.Sprintf(`job=%q`, job), `instance=~"$instance"`}, more...), ",") + "}"
}

// process is what every program tells of itself.
func process(job string) row {
	return row{"Does a process lack something?", []panel{
		graph("Processors used", "short", "How many processors each instance keeps busy.",
			query{rate("instance", "process_cpu_seconds_total"+mine(job)), "{{instance}}"}),
		graph("Memory", "bytes", "What the operating system has given to each instance.",
			query{"process_resident_memory_bytes" + mine(job), "{{instance}}"}),
		graph("Goroutines", "short", "A number that only grows is a leak.",
			query{"go_goroutines" + mine(job), "{{instance}}"}),
		graph("Open files", "percentunit", "Connections and files, of as many as each instance may open.",
			query{"process_open_fds" + mine(job) + " / process_max_fds" + mine(job), "{{instance}}"}),
		graph("Longest pause for garbage", "s", "While memory is collected nothing else runs.",
			query{"go_gc_duration_seconds" + mine(job, `quantile="1"`), "{{instance}}"}),
		graph("Versions", "short", "Instances by what they were built from. Two lines are a roll-out under way.",
			query{"count by (version, revision) (stampede_build_info" + mine(job) + ")", "{{version}} {{revision}}"}),
	}}
}

const (
	postOrders = `stampede_http_request_duration_seconds_bucket{route="POST /api/orders"}`
	lag        = `stampede_order_lag_seconds_bucket`
)

// calls is the duration of calls to a system.
func calls(matchers string) string { return "stampede_call_duration_seconds_bucket{" + matchers + "}" }

var dashboards = []dashboard{
	{
		name: "sale", title: "Stampede: the sale",
		description: "Is the sale healthy, what are buyers told, and where do orders wait?",
		rows: []row{
			{"Is the sale healthy?", []panel{
				number("Alerts", "short", "Alerts that fire. Each has a section in docs/runbook.md.", 0, 1,
					`count(ALERTS{alertstate="firing"}) or vector(0)`),
				number("Accepted", "reqps", "Orders answered with 202.", 0, 0,
					`sum(job_status_code:stampede_order_requests:rate1m{status="202"})`),
				number("Errors", "percentunit", "Share of the requests to order that were answered with 5xx.", .001,
					.01, `max(job:stampede_order_requests_errors:ratio_rate1m)`),
				number("Answered in, p99", "s", "One in a hundred waits longer for the answer.", .25, .5,
					`max(job:stampede_order_request_duration_seconds:p99_1m)`),
				number("Decided", "reqps", "Orders completed or failed.", 0, 0,
					`sum(job_status:stampede_orders_decided:rate1m)`),
				number("Decided in, p99", "s", "One in a hundred is decided later after its reservation.", 5, 10,
					`max(job:stampede_order_lag_seconds:p99_1m)`),
				number("Dead letters", "short", "Messages that wait for an operator.", 0, 1,
					`sum(queue_state:stampede_queue_messages:max{queue="dead_letters"})`),
				number("Units for sale", "short", "Units available in Redis, of all products that are loaded.", 0, 0,
					`max(stampede_stock_available_units)`),
			}},
			{"What are buyers told?", []panel{
				half(stacked(graph("Answers to orders", "reqps", "By problem code; ok is a 202.",
					query{`sum by (code) (job_status_code:stampede_order_requests:rate1m)`, "{{code}}"}))),
				half(bound(.5, graph("Time to the answer", "s", "Of all requests to order.",
					query{quantile(.5, "", postOrders), "p50"}, query{quantile(.9, "", postOrders), "p90"},
					query{quantile(.99, "", postOrders), "p99"}))),
			}},
			{"What becomes of the orders?", []panel{
				half(graph("Accepted and decided", "reqps", "The lines meet when the workers keep up.",
					query{`sum(job_status_code:stampede_order_requests:rate1m{status="202"})`, "accepted"},
					query{`sum by (status) (job_status:stampede_orders_decided:rate1m)`, "{{status}}"})),
				half(bound(10, graph("From reservation to decision", "s", "What a buyer waits for after the 202.",
					percentiles(lag)...))),
				half(graph("Why orders fail", "reqps", "Orders that had been accepted.",
					query{rate("reason", `stampede_orders_decided_total{status="failed"}`), "{{reason}}"})),
				half(graph("Units and reservations", "short",
					"Reservations and outbox are empty when the system is quiet.",
					query{`max(stampede_stock_available_units)`, "units for sale"},
					query{`max(stampede_reservations_open)`, "open reservations"},
					query{`max(stampede_outbox_orders)`, "orders in the outbox"})),
			}},
			{"Where do they wait?", []panel{
				graph("In the edges", "short", "Requests that wait for a reservation.",
					query{`sum(stampede_orders_waiting)`, "waiting"}),
				graph("On the queue", "short",
					"Messages, each with 1 to 100 orders. In flight are those that workers hold.",
					query{`queue_state:stampede_queue_messages:max{queue="orders"}`, "{{state}}"}),
				graph("Time of each step, p99", "s", "The step that stands out is the bottleneck.",
					query{quantile(.99, "", calls(`system="redis",call="reserve"`)), "reserve (Redis)"},
					query{quantile(.99, "", calls(`system="sqs",call="SendMessageBatch"`)), "send (SQS)"},
					query{quantile(.99, "", "stampede_queue_wait_seconds_bucket"), "wait on the queue"},
					query{quantile(.99, "", calls(`system="mysql",call="lock"`)), "wait for the lock (MySQL)"},
					query{quantile(.99, "", "stampede_decide_duration_seconds_bucket"), "decide (MySQL)"},
					query{quantile(.99, "", calls(`system="redis",call="settle"`)), "settle (Redis)"}),
			}},
		},
	},
	{
		name: "edge", title: "Stampede: edges",
		description: "What comes in, what an edge makes of it, and what it lacks.", job: "edge",
		rows: []row{
			{"What comes in?", []panel{
				stacked(graph("Requests", "reqps", "By route.",
					query{rate("route", "stampede_http_requests_total"+mine("edge")), "{{route}}"})),
				graph("Errors", "reqps", "Answers with 5xx, by route and problem code.",
					query{rate("route, code", "stampede_http_requests_total"+mine("edge", `status=~"5.."`)),
						"{{route}} {{code}}"}),
				graph("Time to the answer, p99", "s",
					"GET /api/orders/{id} includes the wait for a decision that its client asks for.",
					query{quantile(.99, "route", "stampede_http_request_duration_seconds_bucket"+mine("edge")),
						"{{route}}"}),
			}},
			{"Does an edge keep up?", []panel{
				graph("Connections", "short", "An edge takes 50,000.",
					query{"stampede_http_connections" + mine("edge"), "{{instance}}"}),
				graph("Orders that wait for a reservation", "short",
					"Of a product, an edge lets 4,000 wait and refuses more.",
					query{"stampede_orders_waiting" + mine("edge"), "{{instance}}"}),
				graph("Orders per call", "short",
					"Means. What gathers while a call is under way goes into the next, so large is busy, and cheap.",
					query{mean("stampede_reserve_batch_orders", mine("edge")), "per reservation call"},
					query{mean("stampede_envelope_orders", mine("edge")), "per message"}),
			}},
			{"What becomes of the reservations?", []panel{
				stacked(graph("Sent to the queue", "reqps",
					"Refused orders are cancelled; unknown ones are finished by the relay.",
					query{rate("outcome", "stampede_orders_sent_total"+mine("edge")), "{{outcome}}"})),
				graph("Cancelled", "reqps", "Orders whose units were given back, since the queue did not take them.",
					query{rate("instance", "stampede_orders_cancelled_total"+mine("edge")), "{{instance}}"}),
				graph("Loans between buckets", "reqps", "Moves of units to a bucket that had too few, by outcome.",
					query{rate("outcome", "stampede_bucket_loans_total"+mine("edge")), "{{outcome}}"}),
				panel{title: "MySQL is left alone", unit: "bool_yes_no", width: 8, max: 1,
					description: "Whether an edge has stopped asking MySQL for a moment, since it failed.",
					queries:     []query{{"stampede_breaker_open" + mine("edge", `breaker="mysql"`), "{{instance}}"}}},
			}},
			process("edge"),
		},
	},
	{
		name: "shop", title: "Stampede: shops",
		description: "What people ask for, what they are told, and what a shop lacks.", job: "shop",
		rows: []row{
			{"What comes in?", []panel{
				stacked(graph("Requests", "reqps", "By route.",
					query{rate("route", "stampede_http_requests_total"+mine("shop")), "{{route}}"})),
				graph("Errors", "reqps", "Answers with 5xx, by route and problem code.",
					query{rate("route, code", "stampede_http_requests_total"+mine("shop", `status=~"5.."`)),
						"{{route}} {{code}}"}),
				graph("Time to the answer, p99", "s", "With a password, most of it is the wait for its hash.",
					query{quantile(.99, "route", "stampede_http_request_duration_seconds_bucket"+mine("shop")),
						"{{route}}"}),
			}},
			{"Does a shop keep up?", []panel{
				half(stacked(graph("Refused", "reqps",
					"Answers with 4xx, by problem code. Many wrong passwords may be somebody who guesses.",
					query{rate("code", "stampede_http_requests_total"+mine("shop", `status=~"4.."`)), "{{code}}"}))),
				half(graph("Connections", "short", "A shop takes 10,000.",
					query{"stampede_http_connections" + mine("shop"), "{{instance}}"})),
			}},
			process("shop"),
		},
	},
	{
		name: "worker", title: "Stampede: workers",
		description: "Do the workers keep up, what takes the time, and what goes wrong?", job: "worker",
		rows: []row{
			{"Do the workers keep up?", []panel{
				stacked(graph("Orders decided", "reqps", "By worker.",
					query{rate("instance", "stampede_orders_decided_total"+mine("worker")), "{{instance}}"})),
				graph("Wait on the queue", "s", "From sending to receiving a message.",
					percentiles("stampede_queue_wait_seconds_bucket"+mine("worker"))...),
				graph("Messages held", "short", "A worker holds 200 and then receives no more.",
					query{"stampede_messages_held" + mine("worker"), "{{instance}}"}),
			}},
			{"What takes the time?", []panel{
				graph("Deciding transaction", "s", "With its repetitions.",
					percentiles("stampede_decide_duration_seconds_bucket"+mine("worker"))...),
				bound(1, graph("Wait for the product's row", "s",
					"The part of a transaction in which somebody else had locked it.",
					percentiles("stampede_call_duration_seconds_bucket"+
						mine("worker", `system="mysql"`, `call="lock"`))...)),
				graph("Orders per transaction", "short", "Mean. The more, the less an order costs.",
					query{mean("stampede_decide_batch_orders", mine("worker")), "orders"}),
			}},
			{"What goes wrong?", []panel{
				graph("Orders that came again", "reqps",
					"Repeated were decided before; retried failed for a reason of their own; relayed were left "+
						"behind by an edge.",
					query{rate("", "stampede_orders_repeated_total"+mine("worker")), "repeated"},
					query{rate("", "stampede_order_retries_total"+mine("worker")), "retried"},
					query{rate("", "stampede_orders_relayed_total"+mine("worker")), "relayed"}),
				graph("Receives of a message, p99", "short",
					"More than 1: workers died, or could not decide. After 10 the queue makes it a dead letter.",
					query{quantile(.99, "", "stampede_message_receives_bucket"+mine("worker")), "p99"}),
				graph("Dead letters written", "short", "In 5 minutes, by cause.",
					query{"sum by (cause) (increase(stampede_dead_letters_total" + mine("worker") + "[5m]))",
						"{{cause}}"}),
				graph("Drift", "short", "Differences between Redis and MySQL in 5 minutes, by cause.",
					query{"sum by (cause) (increase(stampede_drift_found_total" + mine("worker") + "[5m]))",
						"found: {{cause}}"},
					query{"sum by (cause) (increase(stampede_drift_repaired_total" + mine("worker") + "[5m]))",
						"repaired: {{cause}}"}),
				graph("Units moved by hindsight", "short",
					"In 5 minutes: given back by failed orders, and taken out by orders whose reservation Redis "+
						"had lost.",
					query{"sum(increase(stampede_units_given_back_total" + mine("worker") + "[5m]))", "given back"},
					query{"sum(increase(stampede_units_taken_out_total" + mine("worker") + "[5m]))", "taken out"}),
				panel{title: "Receiving is paused", unit: "bool_yes_no", width: 8, max: 1,
					description: "Whether a worker receives nothing, since MySQL or Redis does not answer it.",
					queries: []query{{"stampede_breaker_open" + mine("worker", `breaker="receiving"`),
						"{{instance}}"}}},
			}},
			{"What does Redis hold?", []panel{
				graph("Orders on their way", "short", "All of them are gone when the system is quiet.",
					query{`max(stampede_reservations_open)`, "open reservations"},
					query{`max(stampede_outbox_orders)`, "in the outbox"}),
				bound(300, graph("Oldest reservation", "s", "How long its units have been neither sold nor for sale.",
					query{`max(stampede_reservation_oldest_age_seconds)`, "age"})),
				graph("Stock", "short", "Of the products that are loaded.",
					query{`max(stampede_products_loaded)`, "products"},
					query{`max(stampede_stock_available_units)`, "units for sale"}),
			}},
			process("worker"),
		},
	},
	{
		name: "dependencies", title: "Stampede: Redis, SQS, MySQL",
		description: "Do the systems that Stampede rests on answer, and how fast?",
		rows: []row{
			{"Do they answer?", []panel{
				graph("Calls", "ops", "By system.",
					query{rate("system", "stampede_call_duration_seconds_count"), "{{system}}"}),
				graph("Failed calls", "ops", "By system and call.",
					query{rate("system, call", "stampede_call_errors_total"), "{{system}} {{call}}"}),
				bound(.01, graph("Share of calls that fail", "percentunit", "By program and system, over 5 minutes.",
					query{"job_system:stampede_call_errors:ratio_rate5m", "{{job}} {{system}}"})),
			}},
			{"Redis", []panel{
				graph("Time of a call, p99", "s", "By script or command.",
					query{quantile(.99, "call", calls(`system="redis"`)), "{{call}}"}),
				graph("Connections", "short", "By program.",
					query{"sum by (job, state) (stampede_redis_pool_connections)", "{{job}} {{state}}"}),
				graph("Waits for a connection that were in vain", "ops", "By program.",
					query{rate("job", "stampede_redis_pool_timeouts_total"), "{{job}}"}),
			}},
			{"SQS", []panel{
				graph("Time of a call, p99", "s", "By operation. ReceiveMessage waits for messages on purpose.",
					query{quantile(.99, "call", calls(`system="sqs"`)), "{{call}}"}),
				graph("Orders", "short", "Messages on the queue.",
					query{`queue_state:stampede_queue_messages:max{queue="orders"}`, "{{state}}"}),
				graph("Dead letters", "short", "Messages on the dead-letter queue.",
					query{`queue_state:stampede_queue_messages:max{queue="dead_letters"}`, "{{state}}"}),
			}},
			{"MySQL", []panel{
				graph("Time of a call, p99", "s", "A transaction includes the wait for the lock of its product's row.",
					query{quantile(.99, "call", calls(`system="mysql"`)), "{{call}}"}),
				graph("Connections", "short", "By program.",
					query{`sum by (job) (go_sql_in_use_connections{db_name="stampede"})`, "{{job}} in use"},
					query{`sum by (job) (go_sql_idle_connections{db_name="stampede"})`, "{{job}} idle"},
					query{`sum by (job) (go_sql_max_open_connections{db_name="stampede"})`, "{{job}} at most"}),
				graph("Wait for a connection", "s",
					"Seconds of waiting per second, of all who wait. Above 0 for long, there are too few connections.",
					query{rate("job", `go_sql_wait_duration_seconds_total{db_name="stampede"}`), "{{job}}"}),
			}},
			{"Logs", []panel{
				graph("Log lines not written", "ops",
					"Of a warning or error that comes again and again, only some lines are written.",
					query{rate("job", "stampede_log_lines_dropped_total"), "{{job}}"}),
			}},
		},
	},
}

"""The flash sale with Locust: users who look, buy, buy again and ask what became of their orders.

README.md beside this folder says how to run it. Locust ends with 1 if an answer was not expected, if nothing was
sold, if not all users could be started, or if orders were answered too slowly.
"""

import json
import os
import random
import time
import urllib.error
import urllib.request

from locust import FastHttpUser, between, events, runners, task
from locust.runners import MasterRunner, WorkerRunner

from targets import targets

# Debian's package does not know its own version, and a master takes a worker without one for too old.
runners.__version__ = runners.__version__ or "2"

MAX_FOLLOWS = 3  # how often one order is asked for, each time for up to 10 s
LIMIT = 4  # units that a user may buy


def number(name, fallback, least, most):
    """Reads a variable that bounds the run."""
    text = os.environ.get(name) or str(fallback)
    if not text.isdecimal() or not least <= int(text) <= most:
        raise SystemExit(f"{name} must be a whole number from {least} to {most}")
    return int(text)


EDGES = targets(os.environ.get("EDGE") or "http://127.0.0.1:8080", os.environ.get("ALLOW_HOST"))
# Merchants' changes are answered by the shop, to which the front door leads.
FRONT = targets(os.environ.get("FRONT") or EDGES[0], os.environ.get("ALLOW_HOST"))[0]
UNITS = number("UNITS", 2000, 1, 1_000_000_000)
P99_MS = number("P99_MS", 1000, 1, 60_000)

if not os.environ.get("TOKENS"):
    raise SystemExit("TOKENS must name a file with an access token on each line: ctl token --users 1-1000")
with open(os.environ["TOKENS"], encoding="ascii") as lines:
    TOKENS = lines.read().split()
if not TOKENS:
    raise SystemExit("TOKENS names a file without a token")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirection an error: requests go nowhere but to the target."""

    def redirect_request(self, *_):
        return None


opener = urllib.request.build_opener(NoRedirect, urllib.request.ProxyHandler({}))


def merchant(method, path, body):
    """Sends a request as the merchant whose token is MERCHANT. Ends the run if it is refused."""
    headers = {"Authorization": f"Bearer {os.environ.get('MERCHANT', '')}", "Content-Type": "application/json"}
    request = urllib.request.Request(FRONT + path, json.dumps(body).encode(), headers, method=method)
    try:
        with opener.open(request, timeout=30) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        text = "MERCHANT must be the token of a merchant: ctl token --user 1 --role merchant"
        raise SystemExit(f"{method} {path} is answered with {error.code}. {text}") from None
    except OSError as error:
        raise SystemExit(f"{FRONT} does not answer: {error}") from None


class Sale:
    """The product, the run and what was sold. Every run of a process has a sale of its own."""

    product = 0
    left = 0  # on sale though the run is over
    run = ""
    index, processes = 0, 1  # of this process among those that have users
    started = 0  # users of this process so far
    most = 0  # users when all had been started
    outcomes = {}  # of orders, by name

    @classmethod
    def begin(cls, product, run, processes=1):
        cls.product, cls.run, cls.processes = product, run, processes
        cls.left = cls.started = cls.most = 0
        cls.outcomes = {}


@events.init.add_listener
def listen(environment, **_):
    """Lets workers hear from their master what is on sale. It tells them before they start their users."""
    if isinstance(environment.runner, WorkerRunner):
        environment.runner.register_message("sale", hear_sale)


def hear_sale(environment, msg, **_):
    Sale.begin(**msg.data)
    Sale.index = environment.runner.worker_index


@events.test_start.add_listener
def open_sale(environment, **_):
    if isinstance(environment.runner, WorkerRunner):
        return
    body = {"name": "Load test: locust", "price": 4990, "currency": "EUR", "stock": UNITS, "limit_per_user": LIMIT}
    product = merchant("POST", "/api/products", body)["product_id"]
    Sale.begin(product, f"locust-{time.time_ns():x}")
    if isinstance(environment.runner, MasterRunner):
        processes = environment.runner.worker_index_max
        environment.runner.send_message("sale", {"product": product, "run": Sale.run, "processes": processes})


@events.report_to_master.add_listener
def report_outcomes(data, **_):
    data["outcomes"], Sale.outcomes = Sale.outcomes, {}


@events.worker_report.add_listener
def add_outcomes(data, **_):
    for name, requests in data.get("outcomes", {}).items():
        count(name, requests)


@events.spawning_complete.add_listener
def note_users(user_count, **_):
    Sale.most = max(Sale.most, user_count)


@events.test_stop.add_listener
def close_sale(environment, **_):
    if isinstance(environment.runner, WorkerRunner):
        return
    try:
        merchant("PATCH", f"/api/products/{Sale.product}", {"state": "off_sale"})
    except SystemExit as error:  # the table is worth more now
        Sale.left = 1
        print(error)
    judge(environment)


def judge(environment):
    """Says how a run went, and sets the exit code: 1 if any run of this process missed a threshold."""
    total = environment.stats.total
    orders = environment.stats.get("order", "POST")
    # A user of the page gives a number there, and may stop before all have started.
    wanted = environment.parsed_options.num_users if environment.parsed_options.headless else Sale.most
    p99 = orders.get_response_time_percentile(0.99) or 0
    print("\noutcome of orders      requests")
    for name, requests in sorted(Sale.outcomes.items()):
        print(f"{name:<20} {requests:>10}")
    rules = [
        ("unexpected answers", total.num_failures, "== 0", total.num_failures == 0),
        ("users at once", Sale.most, f"== {wanted}", Sale.most == wanted),
        ("orders accepted", Sale.outcomes.get("accepted", 0), ">= 1", Sale.outcomes.get("accepted", 0) > 0),
        ("orders decided", Sale.outcomes.get("completed", 0), ">= 1", Sale.outcomes.get("completed", 0) > 0),
        ("sales left open", Sale.left, "== 0", Sale.left == 0),
        ("p99 of orders in ms", round(p99), f"< {P99_MS}", p99 < P99_MS),
    ]
    print("\nthreshold              measured  must be   result")
    for name, measured, rule, kept in rules:
        print(f"{name:<20} {measured:>10}  {rule:<8}  {'kept' if kept else 'MISSED'}")
    print(flush=True)
    kept = all(kept for *_, kept in rules)
    environment.process_exit_code = 0 if kept and environment.process_exit_code != 1 else 1


class Buyer(FastHttpUser):
    """One of the crowd, who comes again every few seconds."""

    host = EDGES[0]
    wait_time = between(2, 4)
    connection_timeout = 15
    network_timeout = 15  # longer than a long poll

    def on_start(self):
        number = Sale.started * Sale.processes + Sale.index
        Sale.started += 1
        self.edge = EDGES[number % len(EDGES)]
        self.headers = {"Authorization": f"Bearer {TOKENS[number % len(TOKENS)]}"}
        self.number = number
        self.orders = 0  # sent so far

    def get(self, name, path, expected=(200,)):
        with self.client.get(self.edge + path, name=name, headers=self.headers, allow_redirects=False, catch_response=True) as r:
            if r.status_code in expected:
                r.success()
                return r.json()
            r.failure(f"{r.status_code} {code(r)}")
            return {}

    def send(self, key):
        """Sends an order, and returns where it is found if it was accepted."""
        headers = {**self.headers, "Content-Type": "application/json", "Idempotency-Key": f"{Sale.run}-{key}"}
        body = json.dumps({"product_id": Sale.product, "quantity": 1})
        with self.client.post(self.edge + "/api/orders", data=body, name="order", headers=headers,
                              allow_redirects=False, catch_response=True) as r:
            outcome = "accepted" if r.status_code == 202 else code(r)
            count(outcome)
            if outcome not in ("accepted", "sold_out", "limit_exceeded"):
                r.failure(f"{r.status_code} {outcome}")
                return None
            r.success()
            return r.headers["Location"] if outcome == "accepted" else None

    def complain(self, what):
        self.environment.events.request.fire(
            request_type="CHECK", name=what, response_time=0, response_length=0, exception=AssertionError(what), context={}
        )

    @task(3)
    def look(self):
        self.get("look", f"/api/products/{Sale.product}")

    @task(5)
    def buy(self):
        self.orders += 1
        key = f"{self.number}-{self.orders}"
        order = self.send(key)
        if order is None:
            return
        if random.random() < 0.1 and self.send(key) != order:
            self.complain("the same key gave another answer")
        if random.random() < 0.1:
            self.follow(order)

    @task(1)
    def history(self):
        self.get("history", "/api/orders")

    def follow(self, order):
        for _ in range(MAX_FOLLOWS):
            status = self.get("decision", f"{order}&wait=10s").get("status")
            if status in ("completed", "failed"):
                count(status)
                return
            if status != "pending":
                return
        self.complain("an order stays pending")


def count(outcome, requests=1):
    Sale.outcomes[outcome] = Sale.outcomes.get(outcome, 0) + requests


def code(response):
    """The code of a problem document, or what there is instead."""
    if response.status_code == 0:
        return f"no answer: {response.error}"
    if not (response.headers.get("Content-Type") or "").startswith("application/problem+json"):
        return f"status {response.status_code}"
    return response.json().get("code", "")

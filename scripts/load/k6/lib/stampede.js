// What the scenarios share: the target, the buyers, calls that know which answers are expected, and the table at the end.
import http from 'k6/http';
import { SharedArray } from 'k6/data';
import { Counter, Trend } from 'k6/metrics';
import { targets } from './targets.js';

// maxFollows bounds how often one order is asked for, each time for up to 10 s.
const maxFollows = 3;
// patience bounds the wait for one answer; it is longer than a long poll.
const patience = '15s';
// gracefulStop is how long k6 lets a visit go on after the end. It forgets what it interrupts, so this is more than a
// visit takes, and those that hang are counted.
const gracefulStop = '60s';

const edges = targets(__ENV.EDGE || 'http://127.0.0.1:8080', __ENV.ALLOW_HOST);
// Merchants' changes are answered by the shop, to which the front door leads.
const front = targets(__ENV.FRONT || edges[0], __ENV.ALLOW_HOST)[0];

// number reads a variable that bounds the size of a run.
export function number(name, fallback, min, max) {
  const value = Number(__ENV[name] || fallback);
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new Error(`${name} must be a whole number from ${min} to ${max}`);
  }
  return value;
}

// seconds reads a duration such as 90s, 30m or 2h.
export function seconds(name, fallback, min, max) {
  const parts = /^([0-9]{1,6})(s|m|h)$/.exec(__ENV[name] || fallback);
  const value = parts ? Number(parts[1]) * { s: 1, m: 60, h: 3600 }[parts[2]] : NaN;
  if (!(value >= min && value <= max)) {
    throw new Error(`${name} must be a duration such as 90s, 30m or 2h, from ${min}s to ${max}s`);
  }
  return value;
}

const tokens = new SharedArray('tokens', () => {
  if (!__ENV.TOKENS) {
    throw new Error('TOKENS must name a file with an access token on each line: ctl token --users 1-20000');
  }
  return open(__ENV.TOKENS).split('\n').filter((line) => line !== '');
});

// buyer is the one with a number, and whether that buyer has been here before, since there are only so many tokens.
export function buyer(n) {
  return { token: tokens[n % tokens.length], edge: edges[n % edges.length], again: n >= tokens.length };
}

const rows = {}; // by name, such as "order accepted"
const unexpected = new Counter('unexpected');
let rules = {}; // thresholds by metric
let hasComplained = false;

const metric = (name) => name.replace(/\W/g, '_');

// expect declares the answers that a scenario knows, each a row of the table. Its order is that of the table.
export function expect(...names) {
  for (const name of names) {
    rows[name] = { time: new Trend(metric(name), true), count: new Counter(`${metric(name)}_count`) };
  }
}

// complain counts what should not have happened. Each virtual user says it once, so that there is an end to it.
export function complain(text) {
  unexpected.add(1);
  if (!hasComplained) {
    hasComplained = true;
    console.error(`unexpected: ${text}`);
  }
}

// outcome is what an answer is called: accepted, ok, the status of an order, or the code of a problem document.
export function outcome(response) {
  switch (response.status) {
    case 0:
      return 'no answer';
    case 202:
      return 'accepted';
    case 200:
      return 'ok';
  }
  const type = response.headers['Content-Type'] || '';
  return type.startsWith('application/problem+json') ? response.json('code') : `status ${response.status}`;
}

// judge puts an answer into the table, or complains of it if it is not among the expected outcomes of that call.
export function judge(call, expected, response, name = outcome(response)) {
  const row = rows[`${call} ${name}`];
  if (expected.includes(name) && row) {
    row.time.add(response.timings.duration);
    row.count.add(1);
  } else {
    complain(`${call}: ${name}${response.error ? ` (${response.error})` : ''}`);
  }
  return name;
}

function params(who, call, headers) {
  const all = { ...headers };
  if (who.token) {
    all.Authorization = `Bearer ${who.token}`;
  }
  return { headers: all, timeout: patience, redirects: 0, tags: { name: call } };
}

// get asks for a path.
export function get(call, who, path, expected = ['ok']) {
  const response = http.get(who.edge + path, params(who, call));
  judge(call, expected, response);
  return response;
}

// orderRequest is a request of one unit, or more, for http.batch. Without a key a repetition is another order.
export function orderRequest(call, who, sale, key, quantity = 1) {
  const headers = { 'Content-Type': 'application/json' };
  if (key) {
    headers['Idempotency-Key'] = `${sale.run}-${key}`;
  }
  return ['POST', `${who.edge}/api/orders`, `{"product_id":${sale.product},"quantity":${quantity}}`, params(who, call, headers)];
}

// order sends one, and returns the answer and, if it was accepted, the order's id and where it is found.
export function order(call, who, sale, key, expected, quantity = 1) {
  const response = http.request(...orderRequest(call, who, sale, key, quantity));
  const name = judge(call, expected, response);
  if (name !== 'accepted') {
    return { response, id: null };
  }
  return { response, id: response.json('order_id'), location: response.headers.Location };
}

// follow asks for an accepted order until it is decided. That it fails is possible, that it stays pending is not.
export function follow(call, who, location) {
  for (let i = 0; i < maxFollows; i++) {
    const response = http.get(`${who.edge}${location}&wait=10s`, params(who, call));
    const status = outcome(response) === 'ok' ? response.json('status') : outcome(response);
    if (status !== 'pending') {
      return judge(call, ['completed', 'failed'], response, status);
    }
  }
  complain(`${call}: still pending after ${maxFollows} long polls`);
  return 'pending';
}

// openSale puts a product on sale as the merchant whose token is MERCHANT.
export function openSale(name, units, limit) {
  for (const edge of edges) {
    const ready = http.get(`${edge}/readyz`, params({}, 'ready'));
    if (ready.status !== 200) {
      throw new Error(`${edge}/readyz answers ${ready.status} ${ready.error}`);
    }
  }
  const product = { name: `Load test: ${name}`, price: 4990, currency: 'EUR', stock: units };
  if (limit) {
    product.limit_per_user = limit;
  }
  const made = http.post(`${front}/api/products`, JSON.stringify(product), merchant());
  if (made.status !== 201) {
    throw new Error(`The product cannot be put on sale: ${outcome(made)}. MERCHANT must be the token of a merchant: ctl token --user 1 --role merchant`);
  }
  return { run: `${name}-${Date.now().toString(36)}`, product: made.json('product_id'), units };
}

// closeSale takes the product off sale.
export function closeSale(sale) {
  const done = http.patch(`${front}/api/products/${sale.product}`, '{"state":"off_sale"}', merchant());
  if (done.status !== 200) {
    throw new Error(`product ${sale.product} cannot be taken off sale: ${outcome(done)}`);
  }
}

function merchant() {
  return params({ token: __ENV.MERCHANT || '' }, 'merchant', { 'Content-Type': 'application/json' });
}

// plan is the options of a scenario. Every run fails for an answer that is not expected and for a buyer who could not
// be sent at the appointed time; a scenario adds what else must hold.
export function plan(scenarios, thresholds = {}) {
  rules = { unexpected: ['count==0'], dropped_iterations: ['count==0'], ...thresholds };
  for (const scenario of Object.values(scenarios)) {
    scenario.gracefulStop = gracefulStop;
  }
  return {
    scenarios,
    thresholds: rules,
    summaryTrendStats: ['count', 'p(50)', 'p(95)', 'p(99)', 'p(99.9)', 'max'],
    userAgent: 'stampede-load-test',
    setupTimeout: '60s',
    teardownTimeout: '60s',
  };
}

// within is the threshold of latency, which P99_MS sets.
export function within(...names) {
  const most = number('P99_MS', 1000, 1, 60000);
  return Object.fromEntries(names.map((name) => [metric(name), [`p(99)<${most}`]]));
}

// atLeast is the threshold that something has happened at all, or so often.
export function atLeast(name, least = 1) {
  return { [`${metric(name)}_count`]: [`count>=${least}`] };
}

export function atMost(name, most) {
  return { [`${metric(name)}_count`]: [`count<=${most}`] };
}

// report is a handleSummary that prints the answers by outcome, and what had to hold.
export function report(title) {
  return (data) => {
    const values = (name) => (data.metrics[name] ? data.metrics[name].values : {});
    const ms = (value) => (value === undefined ? '-' : value.toFixed(1));
    const answers = [['answer', 'requests', 'p50 ms', 'p95 ms', 'p99 ms', 'p99.9 ms', 'max ms']];
    for (const name of Object.keys(rows)) {
      const v = values(metric(name));
      const times = v.count ? [v['p(50)'], v['p(95)'], v['p(99)'], v['p(99.9)'], v.max] : Array(5).fill(undefined);
      answers.push([name, String(v.count || 0), ...times.map(ms)]);
    }
    answers.push(['unexpected', String(values('unexpected').count || 0), '', '', '', '', '']);
    answers.push(['dropped', String(values('dropped_iterations').count || 0), '', '', '', '', '']);

    const checks = [['threshold', 'measured', 'result']];
    for (const name of Object.keys(rules)) {
      for (const [source, { ok }] of Object.entries(data.metrics[name].thresholds)) {
        const measured = values(name)[/^[a-z]+(\([0-9.]+\))?/.exec(source)[0]];
        checks.push([`${name} ${source}`, Number.isInteger(measured) ? String(measured) : ms(measured), ok ? 'kept' : 'MISSED']);
      }
    }
    const took = (data.state.testRunDurationMs / 1000).toFixed(0);
    const sale = data.setup_data ? `; product ${data.setup_data.product} with ${data.setup_data.units} units` : '';
    return { stdout: `\n${title}: ${took} s${sale}\n\n${table(answers)}\n${table(checks)}\n` };
  };
}

// table lines up columns, the first to the left and the others to the right.
function table(lines) {
  const width = lines[0].map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  return lines
    .map((line) => `  ${line.map((cell, i) => (i === 0 ? cell.padEnd(width[i]) : cell.padStart(width[i]))).join('  ').trimEnd()}\n`)
    .join('');
}

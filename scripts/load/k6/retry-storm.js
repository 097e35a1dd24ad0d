// Every buyer sends the order several times at once, and once more when the answers are there, all with the same
// Idempotency-Key, as clients do whose answers get lost. Each of these storms is one order or none. There are units for
// half of the buyers.
import http from 'k6/http';
import exec from 'k6/execution';
import { atLeast, buyer, closeSale, complain, expect, follow, get, judge, number, openSale, orderRequest, plan, report, seconds, within } from './lib/stampede.js';

const rate = number('RATE', 40, 1, 10000); // buyers a second
const copies = number('COPIES', 5, 2, 50);
const duration = seconds('DURATION', '30s', 5, 3600);
const units = number('UNITS', Math.ceil((rate * duration) / 2), 1, 1e9);

expect('order accepted', 'order sold_out', 'repeated accepted', 'repeated sold_out', 'decision completed', 'decision failed', 'history ok');

export const options = plan(
  {
    storm: {
      executor: 'constant-arrival-rate',
      rate,
      timeUnit: '1s',
      duration: `${duration}s`,
      preAllocatedVUs: number('VUS', Math.min(50 + 2 * rate, 5000), 1, 20000),
    },
  },
  { ...within('order accepted', 'repeated accepted'), ...atLeast('order accepted'), ...atLeast('repeated accepted') },
);
options.batch = 50;
options.batchPerHost = 50;

// The limit of one unit shows that copies are no further orders.
export const setup = () => openSale('retry-storm', units, 1);
export const teardown = closeSale;
export const handleSummary = report(`retry-storm, ${rate} buyers a second who each send ${copies} + 1 times`);

export default function (sale) {
  const n = exec.scenario.iterationInTest;
  const who = buyer(n);
  if (who.again) {
    exec.test.abort('TOKENS has too few: this scenario needs another buyer each time');
  }
  const key = `buyer-${n}`;
  const answers = http.batch(Array.from({ length: copies }, () => orderRequest('order', who, sale, key)));
  const seen = new Set(answers.map((answer) => named(answer, judge('order', ['accepted', 'sold_out'], answer))));
  const late = http.request(...orderRequest('repeated', who, sale, key));
  seen.add(named(late, judge('repeated', ['accepted', 'sold_out'], late)));
  if (seen.size !== 1) {
    complain(`the same key was answered with ${[...seen].join(' and ')}`);
  }
  if (late.status === 202 && n % 10 === 0) {
    follow('decision', who, late.headers.Location);
    const orders = get('history', who, '/api/orders').json('orders') || [];
    const found = orders.filter((o) => o.product_id === sale.product).length;
    if (found !== 1) {
      complain(`the buyer has ${found} orders in the books`);
    }
  }
}

// named is what must be the same for all copies: the order, or the reason why there is none.
function named(answer, name) {
  return name === 'accepted' ? `order ${answer.json('order_id')}` : name;
}

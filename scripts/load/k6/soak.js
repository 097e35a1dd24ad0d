// An ordinary day, for as long as one likes: the same rate of looking, ordering and asking for one's orders, with units
// for all. The first and the last third of the time have rows of their own, to see whether it gets slower.
import exec from 'k6/execution';
import { atLeast, buyer, closeSale, expect, follow, get, judge, number, openSale, order, plan, report, seconds, within } from './lib/stampede.js';

const rate = number('RATE', 100, 1, 10000); // visitors a second
const duration = seconds('DURATION', '60s', 10, 7 * 24 * 3600);
const units = number('UNITS', rate * duration, 1, 1e9);

expect(
  'list ok', 'look ok', 'order accepted', 'first third accepted', 'last third accepted', 'decision completed',
  'decision failed', 'history ok',
);

export const options = plan(
  {
    day: {
      executor: 'constant-arrival-rate',
      rate,
      timeUnit: '1s',
      duration: `${duration}s`,
      preAllocatedVUs: number('VUS', Math.min(50 + rate, 5000), 1, 20000),
    },
  },
  { ...within('look ok', 'order accepted', 'last third accepted', 'history ok'), ...atLeast('last third accepted') },
);

export const setup = () => openSale('soak', units);
export const teardown = closeSale;
export const handleSummary = report(`soak, ${rate} visitors a second`);

export default function (sale) {
  const n = exec.scenario.iterationInTest;
  const who = buyer(n);
  if (n % 10 === 0) {
    get('list', who, '/api/products');
  }
  get('look', who, `/api/products/${sale.product}`);
  if (n % 2 === 0) {
    const third = ['first third', '', 'last third'][Math.min(2, Math.floor(exec.scenario.progress * 3))];
    const bought = order('order', who, sale, `visit-${n}`, ['accepted']);
    if (bought.id && third) {
      judge(third, ['accepted'], bought.response);
    }
    if (bought.id && n % 20 === 0) {
      follow('decision', who, bought.location);
      get('history', who, '/api/orders');
    }
  }
}

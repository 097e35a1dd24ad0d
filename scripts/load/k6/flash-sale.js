// A crowd comes to a sale at a rate that rises, holds and falls, whatever happens: an open model. There are units for a
// third of it.
import exec from 'k6/execution';
import { atLeast, buyer, closeSale, expect, follow, get, number, openSale, order, plan, report, seconds, within } from './lib/stampede.js';

const rate = number('RATE', 300, 1, 100000); // buyers a second at the peak
const hold = seconds('DURATION', '30s', 5, 3600);
const rise = 10;
const fall = 5;
const units = number('UNITS', Math.ceil((rate * (hold + (rise + fall) / 2)) / 3), 1, 1e9);

expect('look ok', 'order accepted', 'order sold_out', 'order limit_exceeded', 'decision completed', 'decision failed');

export const options = plan(
  {
    crowd: {
      executor: 'ramping-arrival-rate',
      startRate: 1,
      timeUnit: '1s',
      stages: [
        { target: rate, duration: `${rise}s` },
        { target: rate, duration: `${hold}s` },
        { target: 0, duration: `${fall}s` },
      ],
      preAllocatedVUs: number('VUS', Math.min(100 + rate, 5000), 1, 20000),
    },
  },
  { ...within('look ok', 'order accepted', 'order sold_out'), ...atLeast('order accepted'), ...atLeast('decision completed') },
);

export const setup = () => openSale('flash-sale', units, 1);
export const teardown = closeSale;
export const handleSummary = report(`flash-sale, up to ${rate} buyers a second`);

export default function (sale) {
  const n = exec.scenario.iterationInTest;
  const who = buyer(n);
  if (n % 3 === 0) {
    get('look', who, `/api/products/${sale.product}`);
  }
  // Who has been here before may have all that is allowed.
  const bought = order('order', who, sale, `buyer-${n}`, who.again ? ['accepted', 'sold_out', 'limit_exceeded'] : ['accepted', 'sold_out']);
  if (bought.id && n % 10 === 0) {
    follow('decision', who, bought.location);
    order('order', who, sale, `buyer-${n}-again`, ['limit_exceeded', 'sold_out']);
  }
}

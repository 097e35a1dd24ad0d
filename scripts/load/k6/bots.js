// A few bots send orders as fast as they can while people buy. The bots must run into their limits, in units and in
// requests, and the people must not notice.
import exec from 'k6/execution';
import { atLeast, atMost, buyer, closeSale, expect, follow, number, openSale, order, plan, report, seconds, within } from './lib/stampede.js';

const rate = number('RATE', 100, 1, 10000); // people a second
const bots = number('BOTS', 4, 1, 1000);
const botRate = number('BOT_RATE', 150, 1, 10000); // requests a second of each bot; 50 are allowed, after a burst of 500
const duration = seconds('DURATION', '30s', 10, 3600);
const limit = 2;
const units = number('UNITS', Math.ceil((rate * duration) / 2) + limit * bots, 1, 1e9);

expect(
  'person accepted', 'person sold_out', 'decision completed', 'decision failed',
  'bot accepted', 'bot limit_exceeded', 'bot sold_out', 'bot rate_limited',
);

export const options = plan(
  {
    people: {
      executor: 'constant-arrival-rate',
      exec: 'person',
      rate,
      timeUnit: '1s',
      duration: `${duration}s`,
      preAllocatedVUs: number('VUS', Math.min(50 + rate, 5000), 1, 20000),
    },
    bots: {
      executor: 'constant-arrival-rate',
      exec: 'bot',
      rate: bots * botRate,
      timeUnit: '1s',
      duration: `${duration}s`,
      preAllocatedVUs: Math.min(50 + Math.ceil((bots * botRate) / 2), 5000),
    },
  },
  {
    ...within('person accepted'), ...atLeast('person accepted'), ...atLeast('decision completed'),
    ...atLeast('bot rate_limited'), ...atMost('bot accepted', limit * bots),
  },
);

export const setup = () => openSale('bots', units, limit);
export const teardown = closeSale;
export const handleSummary = report(`bots, ${rate} people a second and ${bots} bots that send ${botRate} requests a second each`);

// The first tokens are those of the bots.
export function person(sale) {
  const n = exec.scenario.iterationInTest;
  const who = buyer(bots + n);
  if (who.again) {
    exec.test.abort('TOKENS has too few: this scenario needs another buyer each time');
  }
  const bought = order('person', who, sale, `person-${n}`, ['accepted', 'sold_out']);
  if (bought.id && n % 10 === 0) {
    follow('decision', who, bought.location);
  }
}

// A bot sends no key: each of its requests is another order.
export function bot(sale) {
  order('bot', buyer(exec.scenario.iterationInTest % bots), sale, '', ['accepted', 'limit_exceeded', 'sold_out', 'rate_limited']);
}

// One buyer goes through the whole contract, so that what is wrong shows before a crowd is sent.
import { buyer, closeSale, complain, expect, follow, get, openSale, order, plan, report } from './lib/stampede.js';

expect(
  'list ok', 'look ok', 'look product_not_found', 'order accepted', 'order idempotency_mismatch', 'order limit_exceeded',
  'order unauthenticated', 'order product_not_found', 'order invalid_quantity', 'decision completed', 'decision failed',
  'history ok', 'somebody else order_not_seen_yet',
);

export const options = plan({ smoke: { executor: 'shared-iterations', vus: 1, iterations: 3, maxDuration: '60s' } });

export const setup = () => openSale('smoke', 100, 2);
export const teardown = closeSale;
export const handleSummary = report('smoke');

export default function (sale) {
  const who = buyer(__ITER);
  const key = `buyer-${__ITER}`;
  get('list', who, '/api/products');
  get('look', who, `/api/products/${sale.product}`);
  get('look', who, '/api/products/999999999', ['product_not_found']);

  const bought = order('order', who, sale, key, ['accepted']);
  const again = order('order', who, sale, key, ['accepted']);
  if (bought.id !== again.id) {
    complain('the same key gave two orders');
  }
  order('order', who, sale, key, ['idempotency_mismatch'], 2);
  order('order', who, sale, `${key}-more`, ['limit_exceeded'], 2);
  order('order', who, sale, `${key}-none`, ['invalid_quantity'], 0);
  order('order', who, { ...sale, product: 999999999 }, `${key}-nothing`, ['product_not_found']);
  order('order', { edge: who.edge }, sale, `${key}-nobody`, ['unauthenticated']);

  follow('decision', who, bought.location);
  const history = get('history', who, '/api/orders');
  if (!history.json('orders').some((o) => o.order_id === bought.id)) {
    complain('the order is not in the history of its buyer');
  }
  get('somebody else', buyer(__ITER + 1), `/api/orders/${bought.id}`, ['order_not_seen_yet']);
}

'use strict';
// All that comes from the system is shown by textContent: names of products are what merchants typed.

const $ = id => document.getElementById(id);
const silence = 8000; // ms without an update after which the connection counts as lost
const shown = 120000; // ms that the charts show
const dash = '–';

const whole = new Intl.NumberFormat('en');
const compact = new Intl.NumberFormat('en', {notation: 'compact', maximumFractionDigits: 2});
const count = n => n == null ? dash : n < 1e7 ? whole.format(Math.round(n)) : compact.format(n);
const rate = n => n == null ? dash : n > 0 && n < 10 ? n.toFixed(1) : count(n);
const ms = n => n == null ? dash : n < 10 ? n.toFixed(1) + ' ms' : n < 1000 ? Math.round(n) + ' ms' : (n / 1000).toFixed(1) + ' s';
const some = (n, one, many) => count(n) + ' ' + (n === 1 ? one : many);

function put(id, text, title) {
  const element = $(id);
  if (element.textContent !== text) element.textContent = text;
  if (title !== undefined) element.title = title;
}

function note(id, text, kind = '') {
  put(id, text);
  $(id).className = 'note ' + kind;
}

// verdict says in a line how the system is, the worst first. Screen readers say it when it changes, so it has no numbers that
// change all the time.
function verdict(u) {
  const f = u.fleet, q = u.queue;
  const found = [];
  const add = (kind, text) => found.push({kind, text});
  for (const part of u.silent) add('bad', part[0].toUpperCase() + part.slice(1) + ' does not answer.');
  if (f && f.edges === 0) add('bad', 'No edge is running: nobody can order.');
  if (f && f.workers === 0) add('bad', 'No worker is running: orders wait in the queue.');
  if (f && f.per_second.errors > 0) add('bad', 'Requests to order fail for a reason that is ours.');
  if (f && f.paused > 0) add('bad', some(f.paused, 'worker has', 'workers have') + ' paused, as a server does not answer.');
  if (f && f.drift.found > f.drift.repaired) add('warn', 'Redis differs from MySQL: see ctl reconcile.');
  if (q && q.dead > 0) add('warn', some(q.dead, 'dead letter waits', 'dead letters wait') + ' for you: see ctl dlq list.');
  if (found.length === 0) {
    const selling = f && (f.per_second.accepted > 0 || f.per_second.completed > 0);
    add('ok', selling ? 'All is well. A sale is running.' : 'All is well.');
  }
  found.sort((a, b) => (a.kind === 'bad' ? 0 : 1) - (b.kind === 'bad' ? 0 : 1));
  $('verdict').className = 'verdict ' + found[0].kind;
  put('mark', {ok: '✓', warn: '▲', bad: '✕'}[found[0].kind]);
  put('words', found.map(one => one.text).join(' '));
}

const sum = (products, field) => products.some(p => p[field] == null) ? null : products.reduce((n, p) => n + p[field], 0);

function sale(u) {
  const available = sum(u.products, 'available'), reserved = sum(u.products, 'reserved');
  const sold = sum(u.products, 'sold'), orders = sum(u.products, 'orders');
  put('available', count(available), available == null ? '' : whole.format(available));
  put('reserved', count(reserved), reserved == null ? '' : whole.format(reserved));
  put('sold', count(sold), sold == null ? '' : whole.format(sold));
  note('available-note', 'units');
  note('reserved-note', orders == null ? 'units' : 'units, ' + some(orders, 'order', 'orders') + ' on the way');
  const all = available == null || reserved == null || sold == null ? 0 : available + reserved + sold;
  note('sold-note', all ? 'units, ' + (Math.floor(1000 * sold / all) / 10).toFixed(1) + ' % of ' + count(all) : 'units');
  const r = u.fleet && u.fleet.per_second;
  put('accepted', rate(r && r.accepted));
  note('accepted-note', !r ? 'accepted' : 'accepted; ' + rate(r.sold_out) + ' sold out, ' +
    (r.errors > 0 ? rate(r.errors) + ' failed' : rate(r.refused) + ' refused'), r && r.errors > 0 ? 'bad' : '');
}

function system(u) {
  const f = u.fleet, q = u.queue;
  put('accepted-now', rate(f && f.per_second.accepted));
  put('decided-now', rate(f && f.per_second.completed + f.per_second.failed));
  put('p99', ms(f && f.p99_ms));
  put('p99-note', f && f.p50_ms != null ? '99th percentile, median ' + ms(f.p50_ms) : '99th percentile');
  put('queue', count(q && q.visible + q.in_flight + q.delayed));
  put('queue-note', q ? 'messages, ' + count(q.in_flight) + ' with workers' : 'messages');
  put('dead', count(q && q.dead));
  note('dead-note', !q ? '' : q.dead ? '▲ look at them: ctl dlq list' : '✓ none', !q ? '' : q.dead ? 'warn' : 'ok');
  put('drift', count(f && f.drift.found));
  if (!f) note('drift-note', '');
  else if (f.drift.found === 0) note('drift-note', '✓ Redis agrees with MySQL', 'ok');
  else if (f.drift.found > f.drift.repaired) note('drift-note', '▲ ' + count(f.drift.repaired) + ' of them repaired', 'warn');
  else note('drift-note', '✓ found, all repaired', 'ok');
  put('edges', count(f && f.edges));
  note('edges-note', !f ? '' : f.edges ? '✓ take orders' : '✕ none: nobody can order', !f ? '' : f.edges ? 'ok' : 'bad');
  put('workers', count(f && f.workers));
  note('workers-note', !f ? '' : !f.workers ? '✕ none: orders wait' : f.paused ? '✕ ' + count(f.paused) + ' paused' : '✓ decide orders',
    !f ? '' : f.workers && !f.paused ? 'ok' : 'bad');
}

const rows = new Map(); // of the products, by id

function products(u) {
  for (const [id, row] of rows) {
    if (!u.products.some(p => p.id === id)) { row.remove(); rows.delete(id); }
  }
  u.products.forEach((p, i) => {
    let row = rows.get(p.id);
    if (!row) {
      row = $('product').content.firstElementChild.cloneNode(true);
      rows.set(p.id, row);
    }
    if ($('list').children[i] !== row) $('list').insertBefore(row, $('list').children[i] || null);
    const text = (selector, value) => {
      const element = row.querySelector(selector);
      if (element.textContent !== value) element.textContent = value;
    };
    text('b', p.name);
    row.querySelector('b').title = p.name;
    text('.state', p.state);
    row.querySelector('.state').classList.toggle('gone', p.state === 'sold out');
    text('.s', count(p.sold));
    text('.r', count(p.reserved));
    text('.a', count(p.available));
    const all = (p.sold || 0) + (p.reserved || 0) + Math.max(0, p.available || 0);
    const share = n => (all > 0 ? 100 * (n || 0) / all : 0) + '%';
    row.querySelector('.bar .sold').style.width = share(p.sold);
    row.querySelector('.bar .reserved').style.width = share(p.reserved);
  });
  $('none').hidden = u.products.length > 0 || u.silent.includes('MySQL');
  $('more').hidden = !u.more;
}

function processes(u) {
  const list = u.fleet ? u.fleet.processes : [];
  const cells = p => {
    const s = Math.max(0, Math.round((u.at_ms - p.started_at_ms) / 1000));
    const age = s < 120 ? s + ' s' : s < 7200 ? Math.floor(s / 60) + ' min' : s < 172800 ? Math.floor(s / 3600) + ' h' : Math.floor(s / 86400) + ' days';
    return [p.role, p.host, age, rate(p.per_second), p.paused ? '✕ paused' : '✓ running'];
  };
  $('processes').replaceChildren(...list.map(p => {
    const row = document.createElement('tr');
    cells(p).forEach((value, i) => {
      const cell = row.insertCell();
      cell.textContent = value;
      if (i === 3) cell.className = 'n';
    });
    return row;
  }));
}

let points = []; // [time, accepted and decided per second, latency, messages]

// ceiling is the next of 1, 2, 5, 10, 20, …
function ceiling(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].find(step => step * power >= n * 0.999) * power;
}

function chart(id, series, format, least) {
  const svg = $(id), now = points.length ? points[points.length - 1][0] : 0;
  const values = points.flatMap(p => series.map(i => p[i])).filter(v => v != null);
  const top = ceiling(Math.max(least, ...values));
  const x = t => (600 * (1 - (now - t) / shown)).toFixed(1), y = v => (98 - 94 * v / top).toFixed(1);
  const paths = [['grid', 'M0 4H600M0 51H600']];
  series.forEach((i, n) => {
    // A piece ends where nobody watched, or nothing was known.
    const pieces = [];
    let last = null;
    for (const p of points) {
      if (p[i] == null) { last = null; continue; }
      if (last == null || p[0] - last > 4500) pieces.push([]);
      pieces[pieces.length - 1].push(x(p[0]) + ' ' + y(p[i]));
      last = p[0];
    }
    const line = pieces.map(piece => 'M' + piece.join('L')).join('');
    if (n === 0) {
      const end = point => point.split(' ')[0];
      paths.push(['area', pieces.map(piece => 'M' + end(piece[0]) + ' 100L' + piece.join('L') + 'L' + end(piece[piece.length - 1]) + ' 100Z').join('')]);
    }
    paths.push([n === 0 ? 'one' : 'two', line]);
  });
  svg.replaceChildren(...paths.map(([kind, d]) => {
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('class', kind);
    path.setAttribute('d', d);
    return path;
  }));
  svg.nextElementSibling.textContent = format(top);
}

function charts() {
  if (points.length) points = points.filter(p => p[0] > points[points.length - 1][0] - shown);
  chart('chart-orders', [1, 2], count, 10);
  chart('chart-latency', [3], ms, 10);
  chart('chart-queue', [4], count, 10);
}

function show(u) {
  points.push(u.point);
  put('clock', new Date(u.at_ms).toLocaleTimeString('en-GB'));
  verdict(u);
  sale(u);
  products(u);
  charts();
  system(u);
  processes(u);
}

function state(name, words) {
  if (document.body.className !== name) document.body.className = name;
  put('connected', words);
}

let source, heard;

function lost() {
  state('lost', 'Not connected, trying again. Numbers are of');
}

function connect() {
  if (source) source.close();
  source = new EventSource('board/events');
  heard = Date.now();
  source.addEventListener('history', e => { points = JSON.parse(e.data); });
  source.onmessage = e => {
    heard = Date.now();
    state('live', 'Live');
    show(JSON.parse(e.data));
  };
  source.onerror = lost;
}

// The browser connects again by itself, but not after an answer that is an error, and it does not notice a connection on
// which nothing comes any more.
setInterval(() => {
  const quiet = Date.now() - heard;
  if (quiet > silence) lost();
  if (quiet > silence || source.readyState === EventSource.CLOSED && quiet > 3000) connect();
}, 1000);
connect();

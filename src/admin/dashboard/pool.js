// One pool: how its sessions are spread, what affinity decided, why sessions moved.

import { backendView, COLUMNS, fact } from './backend.js';
import { verdictChart } from './chart.js';
import { el, keyed, setAttribute, setPercent, setText } from './dom.js';
import { count, NONE, percent, plural, span } from './format.js';
import { affinity, key } from './history.js';

/** The view of a pool; `ask(action, pool, backend)` is called for a button. */
export function poolView(name, ask) {
  const title = `pool-${++views}`;
  let current = null;

  const balance = el('p', { class: 'balance' });
  const kept = el('span', { class: 'kept' });
  const facts = el('dl', { class: 'facts inline' });
  const factViews = new Map();

  const table = el('table', { class: 'backends', role: 'table' },
    el('caption', { class: 'unseen' }, `Backends of ${name}`),
    el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' },
      ...COLUMNS.map((column) => el('th', { role: 'columnheader', scope: 'col' }, column)))));
  const backends = new Map();
  const chart = verdictChart(name);
  const moves = reasons('Sessions that left a backend', 'moves', 'No session has left its home since homing started.');
  const ended = reasons('Sessions that ended', 'ended', 'No session has ended since homing started.');
  const fill = el('span', { class: 'live' });
  const tableText = el('p', { class: 'hint' });

  const node = el('section', { class: 'card pool', 'data-pool': name, 'aria-labelledby': title },
    el('header', {}, el('h2', { id: title }, name), balance, kept),
    facts,
    el('p', { class: 'legend', 'aria-hidden': 'true' },
      el('span', { class: 'key live' }), 'live', el('span', { class: 'key retained' }), 'retained',
      el('span', { class: 'key fair' }), 'share by weight'),
    table,
    el('div', { class: 'below' }, chart.node,
      el('div', { class: 'reasons' }, moves.node, ended.node,
        el('div', {}, el('h3', {}, 'Affinity table'), el('div', { class: 'bar thin', 'aria-hidden': 'true' }, fill), tableText))));

  return {
    node,
    update({ pool, history, status }) {
      current = pool;
      setText(balance, `${pool.balance} · sessions live ${span(pool.session_timeout_seconds)}, kept ${span(pool.ttl_seconds)}`);
      const recent = affinity(history, [pool]);
      setText(kept, recent.kept === null ? 'no known session has asked since this page was opened' : `Affinity kept: ${percent(recent.kept, 2)}`);
      setAttribute(kept, 'data-level', recent.kept === null ? 'none' : recent.moved === 0 ? 'ok' : recent.kept < 0.99 ? 'bad' : 'warn');
      keyed(facts, factViews, poolFacts(pool), ([term]) => term, ([term]) => fact(term));

      const scale = Math.max(...pool.backends.map((backend) => backend.live + backend.retained), 0);
      const rows = pool.backends.map((backend) => ({ pool, backend, scale, history, status }));
      keyed(table, backends, rows, ({ backend }) => backend.name,
        ({ backend }) => backendView(name, backend.name, (action, which) => ask(action, current, which)), table.tHead);

      chart.update(pool, history);
      moves.update(pool, history);
      ended.update(pool, history);
      setPercent(fill, 'width', pool.entries / pool.capacity);
      setText(tableText, `${count(pool.entries)} of ${count(pool.capacity)} sessions (${percent(pool.entries / pool.capacity)})`
        + (pool.full ? `; ${count(pool.full)} not learned for want of room` : ''));
    },
  };
}

let views = 0;

function poolFacts(pool) {
  const sum = (field) => pool.backends.reduce((total, backend) => total + backend[field], 0);
  return [
    ['Live', count(sum('live'))],
    ['Retained', count(sum('retained'))],
    ['Streams', count(pool.streams)],
    ['Skew', pool.skew ? pool.skew.toFixed(2) : NONE],
    ['Learned', count(pool.learned)],
    ['Restored', count(pool.restored)],
    ['Renamed', count(pool.renamed)],
    ['Several ids', count(pool.ambiguous)],
    ['Late hits', count(pool.late_hits)],
  ];
}

/** What to do about sessions that were forgotten too soon; empty when there are none. */
export function lateAdvice(pool) {
  if (!pool.late_hits) return '';
  return `${plural(pool.late_hits, 'session')} came back after homing had forgotten ${pool.late_hits === 1 ? 'it' : 'them'}, and the application still knew ${pool.late_hits === 1 ? 'it' : 'them'}: `
    + `raise ttl above ${span(pool.longest_late_seconds)} (it is ${span(pool.ttl_seconds)}).`;
}

function reasons(title, group, none) {
  const body = el('tbody');
  const rows = new Map();
  const empty = el('p', { class: 'hint' }, none);
  const table = el('table', { class: 'numbers' }, el('caption', { class: 'unseen' }, title),
    el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, 'Reason'), el('th', { scope: 'col' }, 'while open, 5 min'), el('th', { scope: 'col' }, 'since start'))),
    body);
  return {
    node: el('div', { 'data-group': group }, el('h3', {}, title), empty, table),
    update(pool, history) {
      const seen = Object.entries(pool[group]).filter(([, value]) => value > 0);
      empty.hidden = seen.length > 0;
      table.hidden = seen.length === 0;
      keyed(body, rows, seen, ([reason]) => reason, ([reason]) => reasonRow(reason, (name) => history.growth(key(pool.name, group, name))));
    },
  };
}

function reasonRow(reason, growth) {
  const [recent, total] = [el('td'), el('td')];
  return {
    node: el('tr', { 'data-reason': reason }, el('th', { scope: 'row' }, reason), recent, total),
    update([, value]) {
      const grown = growth(reason);
      setText(recent, grown === null ? NONE : count(grown));
      setText(total, count(value));
    },
  };
}


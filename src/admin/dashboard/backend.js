// One backend: a row of the pool's table, and a second one with its history that unfolds.

import { el, keyed, setAttribute, setPercent, setText } from './dom.js';
import { between, clock, count, latency, NONE, percent, plural, rate, roughly, share, span } from './format.js';
import { key } from './history.js';

/** The columns of a pool's table. */
export const COLUMNS = ['Backend', 'Sessions', 'Weight', 'Share', 'Requests/s', 'Errors/s', 'p50', 'p99', 'In flight', 'Actions'];

const SHAPES = { up: '●', down: '✕', draining: '◐', maintenance: '■' };

/** The actions that make sense in an administrative state. */
const ACTIONS = { ready: ['drain', 'maintenance'], draining: ['undrain', 'maintenance'], maintenance: ['undrain', 'drain'] };
const LABELS = { drain: 'Drain', undrain: 'Undrain', maintenance: 'Maintenance' };

/** The state as the page shows it: a backend that is down is down, whatever else it is. */
export const shownState = (backend) => (backend.up ? backend.state : 'down');

/** The view of a backend; `ask(action, backend)` is called for a button. */
export function backendView(poolName, name, ask) {
  const id = `history-${++views}`;
  let current = null;

  const shape = el('span', { class: 'shape', 'aria-hidden': 'true' });
  const state = el('span', { class: 'state-name' });
  const since = el('span', { class: 'since' });
  const url = el('span', { class: 'url' });
  const toggle = el('button', { type: 'button', class: 'fold', 'aria-expanded': 'false', 'aria-controls': id, 'aria-label': `History of ${name}` }, 'History');

  const live = el('span', { class: 'live' });
  const retained = el('span', { class: 'retained' });
  const fair = el('span', { class: 'fair' });
  const bar = el('div', { class: 'bar', 'aria-hidden': 'true' }, live, retained, fair);
  const sessions = el('p', { class: 'sessions' });
  const drain = drainView(name);

  const cells = Object.fromEntries(COLUMNS.slice(2, 9).map((column) => [column, cell(column)]));
  const buttons = Object.keys(LABELS).map((action) => {
    const button = el('button', { type: 'button', 'data-action': action, 'aria-label': `${LABELS[action]} ${name}` }, LABELS[action]);
    button.addEventListener('click', () => ask(action, current));
    return button;
  });

  const detail = detailView();
  const detailRow = el('tr', { role: 'row', class: 'detail', id, hidden: '' },
    el('td', { role: 'cell', colspan: COLUMNS.length }, detail.node));
  toggle.addEventListener('click', () => {
    detailRow.hidden = !detailRow.hidden;
    setAttribute(toggle, 'aria-expanded', !detailRow.hidden ? 'true' : 'false');
  });

  const node = el('tbody', { role: 'rowgroup', 'data-backend': name },
    el('tr', { role: 'row', class: 'backend' },
      el('th', { role: 'rowheader', scope: 'row' },
        el('span', { class: 'name' }, name), el('span', { class: 'badge' }, shape, state), url, since, ' ', toggle),
      el('td', { role: 'cell', class: 'load', 'data-column': 'Sessions' }, bar, sessions, drain.node),
      ...Object.values(cells),
      el('td', { role: 'cell', class: 'actions', 'data-column': 'Actions' }, ...buttons)),
    detailRow);

  return {
    node,
    update({ pool, backend, scale, history, status }) {
      current = backend;
      const shown = shownState(backend);
      setAttribute(node, 'data-state', shown);
      setText(shape, SHAPES[shown] ?? '?');
      // Both are true of a backend that dies while it drains, and both matter.
      setText(state, shown === 'down' && backend.admin !== 'ready' ? `down, ${backend.admin}` : shown);
      setText(url, backend.url + (backend.left_dns ? ' (left DNS)' : backend.left_config ? ' (left the configuration)' : ''));
      setText(since, sinceText(backend, status.time));

      setPercent(live, 'width', scale ? backend.live / scale : 0);
      setPercent(retained, 'width', scale ? backend.retained / scale : 0);
      const part = fairPart(pool, backend);
      fair.hidden = part === null || !scale;
      if (!fair.hidden) setPercent(fair, 'left', part * pool.backends.reduce((sum, each) => sum + each.live, 0) / scale);
      setText(sessions, `${count(backend.live)} live · ${count(backend.retained)} retained`);
      drain.update(backend);

      const requests = key(poolName, name, 'requests');
      const errors = history.rate(key(poolName, name, 'errors'), 60);
      setText(cells.Weight, count(backend.weight));
      setText(cells.Share, share(backend.share));
      setText(cells['Requests/s'], rate(history.rate(requests)));
      setText(cells['Errors/s'], rate(errors));
      cells['Errors/s'].classList.toggle('bad', errors > 0);
      setText(cells.p50, latency(backend.latency_seconds?.p50));
      setText(cells.p99, latency(backend.latency_seconds?.p99));
      const streams = backend.streams ? `, ${plural(backend.streams, 'stream')}` : '';
      const queued = backend.queued ? `, ${count(backend.queued)} waiting` : '';
      setText(cells['In flight'], `${count(backend.in_flight)}${streams}${queued}`);

      for (const button of buttons) {
        button.hidden = !(ACTIONS[backend.admin] ?? []).includes(button.dataset.action);
        button.disabled = status.changes === 'refused';
        setAttribute(button, 'aria-describedby', button.disabled ? 'changes-note' : null);
      }
      detail.update(backend, status.time);
    },
  };
}

let views = 0;

function cell(column) {
  return el('td', { role: 'cell', class: 'number', 'data-column': column });
}

/** Which part of the live sessions its weight would give it; null for a backend that takes none. */
function fairPart(pool, backend) {
  const takes = (each) => each.up && each.admin === 'ready';
  if (!takes(backend)) return null;
  return backend.weight / pool.backends.filter(takes).reduce((sum, each) => sum + each.weight, 0);
}

function sinceText(backend, now) {
  const last = backend.health.at(-1);
  if (!last) return '';
  const ago = between(last.at, now);
  const time = ago < 86_400 ? `for ${span(ago)}` : `since ${clock(last.at, now)}`;
  return last.up ? `up ${time}` : `down ${time}: ${last.why}`;
}

/** How far a drain is: against the most live sessions that this page has seen since it began. */
function drainView(name) {
  let most = 0;
  const bar = el('progress', { max: 1, 'aria-label': `Drain of ${name}` });
  const text = el('p');
  const node = el('div', { class: 'drain', hidden: '' }, bar, text);
  return {
    node,
    update(backend) {
      const drains = backend.admin === 'draining';
      node.hidden = !drains;
      if (!drains) {
        most = 0;
        return;
      }
      const left = backend.live + backend.streams + requests(backend);
      most = Math.max(most, left);
      setAttribute(bar, 'value', (most ? 1 - left / most : 1).toFixed(3));
      const words = drainText(backend);
      setText(text, words[0].toUpperCase() + words.slice(1));
    },
  };
}

/** Requests that are under way or queued, beside open streams. */
function requests(backend) {
  return Math.max(0, backend.in_flight + backend.queued - backend.streams);
}

/** Whether nothing is left of what a drain waits for. */
export function drained(backend) {
  return backend.live + backend.streams + requests(backend) === 0;
}

/** A drain in words. */
export function drainText(backend) {
  const under = requests(backend);
  if (drained(backend)) {
    const kept = backend.retained ? `; ${plural(backend.retained, 'retained session')} past the session timeout` : '';
    return `drained, safe to stop${kept}`;
  }
  const left = `${plural(backend.live, 'live session')}${backend.streams ? `, ${plural(backend.streams, 'stream')}` : ''}${under ? `, ${plural(under, 'request')}` : ''} left`;
  const eta = backend.drain_eta_seconds === null ? 'no estimate yet' : `empty in about ${roughly(backend.drain_eta_seconds)}`;
  const deadline = backend.drain_deadline_seconds === null ? '' : `; the rest is moved in ${roughly(backend.drain_deadline_seconds)}`;
  return `${left}, ${eta}${deadline}`;
}

function detailView() {
  const health = el('ol', { class: 'health', reversed: '' });
  const quiet = el('p', { class: 'hint' }, 'No change of health since homing started.');
  const facts = el('dl', { class: 'facts' });
  const changes = new Map();
  const groups = new Map();
  return {
    node: el('div', { class: 'history' }, el('div', {}, el('h3', {}, 'Health'), quiet, health), el('div', {}, el('h3', {}, 'Since start'), facts)),
    update(backend, now) {
      const latest = backend.health.toReversed();
      quiet.hidden = latest.length > 0;
      keyed(health, changes, latest, (change) => `${change.at} ${change.up}`, (change) => healthItem(change, now));
      const known = backend.verdicts.home + backend.verdicts.moved;
      const rows = [
        ['Requests', `${count(backend.requests_total)}, ${plural(backend.errors_total, 'error')} (${percent(backend.requests_total ? backend.errors_total / backend.requests_total : 0, 2)})`],
        ['Verdicts', words(backend.verdicts) || 'none'],
        ['Sessions that left', words(backend.moves) || 'none'],
        ['Sessions that ended', words(backend.ended) || 'none'],
        ['Affinity kept', known ? percent(backend.verdicts.home / known, 2) : NONE],
        ['Generation', count(backend.generation)],
      ];
      keyed(facts, groups, rows, ([term]) => term, ([term]) => fact(term));
    },
  };
}

function healthItem(change, now) {
  const word = change.up ? 'up' : 'down';
  return {
    node: el('li', { 'data-up': String(change.up) },
      el('time', { datetime: change.at }, clock(change.at, now)), ' ',
      el('strong', {}, word), ` by ${change.by}: ${change.why}`),
    update() {},
  };
}

/** A term and its description, as a group of a `dl`. */
export function fact(term) {
  const description = el('dd');
  return { node: el('div', {}, el('dt', {}, term), description), update: ([, value]) => setText(description, value) };
}

/** Counts that are not zero, in words. */
export function words(counts) {
  return Object.entries(counts).filter(([, value]) => value > 0).map(([name, value]) => `${name} ${count(value)}`).join(', ');
}

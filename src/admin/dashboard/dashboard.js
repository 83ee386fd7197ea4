// The dashboard: statuses come in by the feed, views are brought up to date with them.

import { forgetToken, get, holdsToken, onToken } from './client.js';
import { shownState } from './backend.js';
import { askChange, askToken } from './change.js';
import { announce, el, keyed, setAttribute, setText } from './dom.js';
import { explainView } from './explain.js';
import { Feed } from './feed.js';
import { clock, count, NONE, percent, rate, roughly, span } from './format.js';
import { affinity, History, key } from './history.js';
import { poolView } from './pool.js';
import { problems } from './problems.js';

const byId = (id) => document.getElementById(id);
const history = new History();
const pools = new Map();
const problemItems = new Map();
const tiles = new Map();
const explain = explainView();
const feed = new Feed(show, connection);
let status = null;
let asking = false;

byId('explain').append(explain.node);
byId('forget').addEventListener('click', forgetToken);
onToken(() => { byId('forget').hidden = !holdsToken(); });
feed.start();

function show(next) {
  // A poll may be overtaken by the stream. (Much less uptime is a restart, whatever the clock says.)
  const behind = status ? status.uptime_seconds - next.uptime_seconds : 0;
  if (behind > 0 && behind < 5 && next.time < status.time) return;
  tellChanges(status, next);
  status = next;
  history.push(next);
  setText(byId('about'), `${next.version} · ${next.phase} · up ${span(next.uptime_seconds)}${next.config.file ? ` · ${next.config.file}` : ''}`);
  showProblems(problems(next, history));
  keyed(byId('tiles'), tiles, tileValues(next), ([term]) => term, ([term]) => tile(term));
  byId('changes-note').hidden = next.changes !== 'refused';
  setText(byId('changes-note'), next.changes === 'refused'
    ? 'Looking only: this listener refuses changes. Set [admin] token_file (or, on loopback, allow_changes = true), or use the admin socket.' : '');
  keyed(byId('pools'), pools, next.pools.map((pool) => ({ pool, history, status: next })), ({ pool }) => pool.name,
    ({ pool }) => poolView(pool.name, change));
  explain.update(next);
}

async function change(action, pool, backend) {
  if (await askChange(action, pool, backend, status)) {
    announce(`${backend.name}: ${action} accepted`);
    feed.now();
  }
}

function tileValues(next) {
  const recent = affinity(history, next.pools);
  const backends = next.pools.flatMap((pool) => pool.backends);
  const sum = (field) => backends.reduce((total, backend) => total + backend[field], 0);
  const serving = backends.filter((backend) => backend.up && backend.admin !== 'maintenance').length;
  const rates = next.pools.flatMap((pool) => pool.backends.map((backend) => history.rate(key(pool.name, backend.name, 'errors'), 60)));
  const errors = rates.includes(null) ? null : rates.reduce((total, value) => total + value, 0);
  const down = backends.filter((backend) => !backend.up).length;
  return [
    ['Affinity kept', percent(recent.kept, 2), recent.kept === null ? 'no known session has asked since this page was opened' : `${count(recent.moved)} moved in ${roughly(history.covered)}`,
      recent.moved ? (recent.kept < 0.99 ? 'bad' : 'warn') : 'ok'],
    ['Backends serving', `${serving} of ${backends.length}`, down ? `${count(down)} down` : 'none is down', down ? 'bad' : 'ok'],
    ['Live sessions', count(sum('live')), `${count(sum('retained'))} retained`, 'ok'],
    ['Requests/s', rate(history.rate(key('requests'))), `${count(next.requests_total)} since start`, 'ok'],
    ['Errors/s', rate(errors), '5xx or no answer', errors > 0 ? 'warn' : 'ok'],
    ['Connections', count(next.connections), 'of clients, open', 'ok'],
  ];
}

function tile(term) {
  const [value, note] = [el('span', { class: 'value' }), el('span', { class: 'hint' })];
  const node = el('div', { class: 'tile', 'data-tile': term }, el('dt', {}, term), el('dd', {}, value, note));
  return {
    node,
    update([, text, hint, level]) {
      setText(value, text);
      setText(note, hint);
      setAttribute(node, 'data-level', text === NONE ? 'ok' : level);
    },
  };
}

function showProblems(found) {
  const worst = found[0]?.level ?? 'ok';
  const list = byId('problems');
  list.querySelector('.waiting')?.remove();
  const items = found.length ? found : [{ id: 'well', level: 'ok', text: 'All is well: every backend serves, every session finds its home.', where: null }];
  keyed(list, problemItems, items, (problem) => `${problem.level} ${problem.id}`, problemItem);
  const pressing = found.filter((problem) => problem.level !== 'info').length;
  setText(byId('problems-title'), pressing ? 'Needs attention' : found.length ? 'Under way' : 'Status');
  setAttribute(list, 'data-level', worst);
  document.title = pressing ? `(${pressing}) homing` : 'homing';
}

const LEVELS = { bad: ['✕', 'Problem'], warn: ['!', 'Warning'], info: ['◐', 'Note'], ok: ['✓', 'Good'] };

function problemItem({ level, where }) {
  const [sign, word] = LEVELS[level];
  const text = el('span');
  const node = el('li', { 'data-level': level },
    el('span', { class: 'sign', 'aria-hidden': 'true' }, sign), el('span', { class: 'unseen' }, `${word}: `),
    ...(where ? [el('strong', {}, where), ' '] : []), text);
  return { node, update: (problem) => setText(text, problem.text) };
}

/** Says what has changed since the last status; numbers are not worth interrupting anybody. */
function tellChanges(before, after) {
  if (!before) return;
  for (const pool of after.pools) {
    const old = before.pools.find((each) => each.name === pool.name);
    for (const backend of pool.backends) {
      const was = old?.backends.find((each) => each.name === backend.name);
      if (!was) continue;
      if (shownState(was) !== shownState(backend)) announce(`${backend.name} of ${pool.name} is ${shownState(backend)}`);
      const left = (each) => each.live + each.streams;
      if (backend.admin === 'draining' && left(was) > 0 && left(backend) === 0) announce(`${backend.name} of ${pool.name} is drained`);
    }
  }
}

const FEED_TEXTS = { live: 'Live', polling: 'Polling', lost: 'Not connected', locked: 'Locked' };

function connection(state, message) {
  setAttribute(byId('feed'), 'data-state', state);
  setText(byId('feed-text'), FEED_TEXTS[state]);
  const cut = state === 'lost' || state === 'locked';
  document.body.classList.toggle('stale', cut);
  const banner = byId('banner');
  if (!cut) {
    banner.hidden = true;
    setText(banner, '');
  } else if (state === 'locked') {
    banner.hidden = false;
    setText(banner, `homing does not let this page read: ${message}`);
    unlock(message);
  } else {
    banner.hidden = false;
    setText(banner, status
      ? `Not connected: homing does not answer. What you see is from ${clock(status.time, status.time)}. Trying again.`
      : 'Not connected: homing does not answer. Trying again.');
  }
}

async function unlock(message) {
  if (asking) return;
  asking = true;
  await askToken(message, () => get('api/v1/status'));
  feed.now();
  // Left without a token: the banner says why nothing is shown, a reload asks again.
  asking = !holdsToken();
}

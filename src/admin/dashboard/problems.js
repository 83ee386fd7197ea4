// What an operator has to know first, worst first. Pure: a status and the history in, sentences out.

import { drainText, drained, shownState, words } from './backend.js';
import { clock, count, percent, plural, rate, roughly, share } from './format.js';
import { affinity, key } from './history.js';
import { lateAdvice } from './pool.js';

const ORDER = { bad: 0, warn: 1, info: 2 };

/** Problems as `{id, level, where, text}`; `where` names the pool that it is about. */
export function problems(status, history) {
  const found = [];
  const add = (level, id, text, where = null) => found.push({ level, id, text, where });
  if (status.phase !== 'ready') add('warn', 'phase', `homing is ${status.phase === 'starting' ? 'starting' : 'stopping'}: it takes no new clients.`);
  if (!status.config.last_reload_ok) {
    add('warn', 'reload', `The last reload of ${status.config.file ?? 'the configuration'} was refused; what was loaded at ${clock(status.config.loaded_at, status.time)} stays in force. ${status.config.error ?? ''}`);
  }
  for (const crowd of status.crowds ?? []) {
    add('warn', `crowd ${crowd.address}`, `${plural(crowd.sessions, 'session')} began on ${plural(crowd.connections, 'connection')} of ${crowd.address}: a proxy or a CDN? Name it in trusted_proxies, or let it send PROXY headers.`);
  }
  for (const pool of status.pools) ofPool(pool, status, history, (level, id, text) => add(level, `${pool.name} ${id}`, text, pool.name));
  return found.sort((a, b) => ORDER[a.level] - ORDER[b.level]);
}

function ofPool(pool, status, history, add) {
  const serving = pool.backends.filter((backend) => backend.up && backend.admin !== 'maintenance');
  if (!serving.length) add('bad', 'none', 'No backend serves: every request is refused.');
  else if (!serving.some((backend) => backend.admin === 'ready')) add('bad', 'closed', 'No backend takes new sessions: those that serve are draining.');

  const refused = history.growth(key(pool.name, 'verdicts', 'refused'), 60) ?? 0;
  if (refused && serving.length) add('bad', 'refused', `${plural(refused, 'request')} refused within the last minute.`);

  for (const backend of pool.backends) ofBackend(pool, backend, status, history, add);

  const recent = affinity(history, [pool]);
  if (recent.moved) {
    const why = Object.fromEntries(Object.keys(pool.moves).map((reason) => [reason, history.growth(key(pool.name, 'moves', reason)) ?? 0]));
    add(recent.kept < 0.99 ? 'bad' : 'warn', 'affinity',
      `${percent(recent.kept, 2)} of requests found their session's home within the last ${roughly(history.covered)}; ${plural(recent.moved, 'request')} did not (${words(why) || 'see moves'}).`);
  }
  const full = history.growth(key(pool.name, 'full')) ?? 0;
  if (full) add('bad', 'full', `The affinity table is full of live sessions: ${plural(full, 'new one')} not learned lately. Raise max_sessions.`);
  else if (pool.entries / pool.capacity >= 0.9) add('warn', 'full', `The affinity table is ${percent(pool.entries / pool.capacity)} full. Raise max_sessions.`);
  if (pool.key_advice) add('warn', 'key', `${pool.key_advice[0].toUpperCase()}${pool.key_advice.slice(1)}.`);
  else if (!pool.has_learned) add('info', 'key', `No session yet: no response has set an id by ${pool.key}.`);
  if (pool.late_hits) add('warn', 'late', lateAdvice(pool));
  const several = history.growth(key(pool.name, 'ambiguous')) ?? 0;
  if (several) add('warn', 'ambiguous', `${plural(several, 'request')} carried several different session cookies of one name lately (another Path or Domain?).`);
  const live = pool.backends.reduce((sum, backend) => sum + backend.live, 0);
  if (pool.skew >= 1.5 && live >= 20) add('info', 'skew', `Sessions are spread unevenly: one backend has ${pool.skew.toFixed(1)} times its share.`);
}

function ofBackend(pool, backend, status, history, add) {
  const { name } = backend;
  if (!backend.up) {
    const last = backend.health.findLast((change) => !change.up);
    const since = last ? ` since ${clock(last.at, status.time)} (${last.why})` : '';
    const homes = backend.live ? ` ${plural(backend.live, 'live session')} had their home there; each is moved when it asks.` : '';
    add('bad', `${name} down`, `${name} is down${since}.${homes}`);
  } else if (shownState(backend) === 'draining') {
    add('info', `${name} drain`, `${name} is ${drained(backend) ? '' : 'draining: '}${drainText(backend)}.`);
  } else if (shownState(backend) === 'maintenance') {
    add('info', `${name} maintenance`, `${name} is in maintenance${backend.live ? `; ${plural(backend.live, 'live session')} not moved yet` : ''}.`);
  }
  const errors = history.growth(key(pool.name, name, 'errors'), 60);
  const requests = history.growth(key(pool.name, name, 'requests'), 60);
  if (backend.up && errors >= 5 && errors / requests >= 0.02) {
    add('warn', `${name} errors`, `${name} failed ${count(errors)} of ${plural(requests, 'request')} within the last minute (${share(errors / requests)}, ${rate(errors / 60)}/s).`);
  }
}

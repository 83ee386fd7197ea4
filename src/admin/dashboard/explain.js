// Where does this session live, since when, and why was it moved? The id goes into the body of one
// request: never into a URL, a name, an attribute, or the page.

import { post } from './client.js';
import { askToken, secretField } from './change.js';
import { el, keyed, setText } from './dom.js';
import { plural, span } from './format.js';

/** The explain box; `update(status)` keeps its choice of pools. */
export function explainView() {
  const field = secretField('session-id');
  field.setAttribute('aria-describedby', 'explain-hint');
  const pools = el('select', { id: 'explain-pool' });
  const poolField = el('div', { class: 'field' }, el('label', { for: 'explain-pool' }, 'Pool'), pools);
  const button = el('button', { type: 'submit', class: 'primary' }, 'Explain');
  const result = el('div', { class: 'result', role: 'status' });
  const error = el('p', { class: 'error', role: 'alert' });
  const form = el('form', { method: 'dialog' }, poolField,
    el('div', { class: 'field grow' }, el('label', { for: 'session-id' }, 'Session id'), field), button);
  const options = new Map();

  const ask = async (body) => show(result, await post('api/v1/explain', body));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const id = field.value.trim();
    if (!id || button.disabled) return;
    const body = options.size > 1 ? { id, pool: pools.value } : { id };
    button.disabled = true;
    setText(error, '');
    result.replaceChildren();
    try {
      await ask(body);
      field.value = '';
    } catch (refusal) {
      if (refusal.status === 401) {
        if (await askToken('Explaining a session needs the admin token here.', () => ask(body))) field.value = '';
      } else {
        setText(error, refusal.message);
      }
    }
    button.disabled = false;
  });
  // A page that is kept for the back button keeps its fields, too.
  addEventListener('pagehide', () => { field.value = ''; });

  return {
    node: el('div', {}, form, error, result),
    update(status) {
      poolField.hidden = status.pools.length < 2;
      keyed(pools, options, status.pools, (pool) => pool.name, (pool) => ({ node: el('option', {}, pool.name), update() {} }));
    },
  };
}

function show(result, answer) {
  if (!answer.known) {
    const next = answer.would_go_to
      ? `A request with this id would go to ${answer.would_go_to} (by rendezvous hashing), and be bound if the application accepts it.`
      : answer.placed
        ? 'A request with this id would be placed like one without an id, and be bound if the application accepts it.'
        : 'A request with this id would be refused: no backend serves.';
    result.replaceChildren(el('p', { class: 'verdict' }, 'Not known.'), el('p', {}, next),
      el('p', { class: 'hint' }, `Pool ${answer.pool}, fingerprint ${answer.fingerprint}`));
    return;
  }
  const facts = [
    ['State', answer.state],
    ['Known for', span(answer.age_seconds)],
    ['Idle for', span(answer.idle_seconds)],
    ['Forgotten in', answer.left_seconds === null ? 'not while it is in use' : span(answer.left_seconds)],
    ['Open streams', String(answer.streams)],
    ['Fingerprint', answer.fingerprint],
  ];
  if (answer.unlearned) facts.push(['Learned', 'not yet: no backend has set this id; it is bound for now']);
  result.replaceChildren(
    el('p', { class: 'verdict' }, 'Lives on ', el('strong', {}, answer.home), ` in pool ${answer.pool}.`),
    el('dl', { class: 'facts' }, ...facts.map(([term, value]) => el('div', {}, el('dt', {}, term), el('dd', {}, value)))),
    movesOf(answer.moves));
}

function movesOf(moves) {
  if (!moves.length) return el('p', { class: 'hint' }, 'It has never moved.');
  return el('table', { class: 'numbers moves' },
    el('caption', {}, `The last ${plural(moves.length, 'move')}`),
    el('thead', {}, el('tr', {}, ...['When', 'From', 'To', 'Reason'].map((column) => el('th', { scope: 'col' }, column)))),
    el('tbody', {}, ...moves.map((move) => el('tr', {},
      el('th', { scope: 'row' }, `${span(move.seconds_ago)} ago`), el('td', {}, move.from), el('td', {}, move.to), el('td', {}, move.reason)))));
}

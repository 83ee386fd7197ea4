// The dialogs: one that asks before a backend is drained and the like, one for the token to read with.

import { backendPath, holdsToken, holdToken, post } from './client.js';
import { el, setText } from './dom.js';
import { plural, span } from './format.js';

const DEADLINES = [['', 'none: wait until it is empty'], ['900', '15 minutes'], ['3600', '1 hour'], ['14400', '4 hours'], ['86400', '1 day']];

/** A field for what must not be seen, kept or sent anywhere else: it has no name, hence no form sends it. */
export function secretField(id) {
  // Not a password field, which browsers offer to save; where the masking is unknown, better that than plain.
  const masked = CSS.supports('-webkit-text-security', 'disc');
  return el('input', {
    id, type: masked ? 'text' : 'password', class: 'secret', autocomplete: 'off', autocapitalize: 'off',
    autocorrect: 'off', spellcheck: 'false', 'data-1p-ignore': '', 'data-lpignore': 'true', required: '',
  });
}

/** Asks for a change of a backend and makes it; resolves to whether it was made. */
export function askChange(action, pool, backend, status) {
  const deadline = el('select', { id: 'deadline' }, ...DEADLINES.map(([value, label]) => el('option', { value }, label)));
  const deadlineField = action === 'drain'
    ? [el('div', { class: 'field' }, el('label', { for: 'deadline' }, 'Deadline'), deadline,
      el('p', { class: 'hint' }, 'Sessions that are still there then are moved.'))]
    : [];
  const { title, text, button } = describe(action, pool, backend);
  const warning = leavesNone(action, pool, backend)
    ? [el('p', { class: 'warning' }, `No other backend of ${pool.name} takes new sessions: new clients will be refused.`)]
    : [];
  return dialog({
    title, button, wantsToken: status.changes === 'token',
    content: [el('p', {}, text), ...warning, ...deadlineField],
    run: () => {
      const seconds = deadline.value ? Number(deadline.value) : null;
      return post(backendPath(pool.name, backend.name, action), action === 'drain' ? { deadline_seconds: seconds } : {});
    },
  });
}

/** Asks for a token, and tries it with `run`. */
export function askToken(text, run) {
  return dialog({ title: 'A token is needed', button: 'Continue', wantsToken: true, content: [el('p', {}, text)], run });
}

function describe(action, pool, backend) {
  const sessions = plural(backend.live, 'live session');
  const stay = backend.live === 1 ? 'stays' : 'stay';
  switch (action) {
    case 'drain':
      return {
        title: `Drain ${backend.name}?`, button: 'Drain',
        text: `It gets no new sessions. Its ${sessions} ${stay} until ${backend.live === 1 ? 'it ends' : 'they end'}, at most ${span(pool.session_timeout_seconds)} after the last use.`,
      };
    case 'maintenance':
      return {
        title: `Take ${backend.name} out for maintenance?`, button: 'Take it out',
        text: `It gets no requests at all. Its ${sessions} ${backend.live === 1 ? 'moves' : 'move'} to other backends with the next request, and whatever only ${backend.name} has in memory for them is lost to them.`,
      };
    default:
      return { title: `Take ${backend.name} back into service?`, button: 'Undrain', text: 'It takes new sessions again.' };
  }
}

function leavesNone(action, pool, backend) {
  return action !== 'undrain' && !pool.backends.some((other) => other.name !== backend.name && other.up && other.admin === 'ready');
}

/** A modal dialog that stays open, and says why, until `run` succeeds or it is left. */
function dialog({ title, button, wantsToken, content, run }) {
  const field = secretField('token');
  const tokenField = el('div', { class: 'field' }, el('label', { for: 'token' }, 'Token'), field,
    el('p', { class: 'hint' }, 'From the admin token file. Kept in this page’s memory only.'));
  const error = el('p', { class: 'error', role: 'alert' });
  const confirm = el('button', { type: 'submit', class: 'primary' }, button);
  const cancel = el('button', { type: 'button' }, 'Cancel');
  const form = el('form', { method: 'dialog' }, el('h2', { id: 'dialog-title' }, title), ...content, tokenField, error,
    el('div', { class: 'buttons' }, cancel, confirm));
  const node = el('dialog', { 'aria-labelledby': 'dialog-title' }, form);
  const showToken = () => {
    tokenField.hidden = !wantsToken || holdsToken();
    field.required = !tokenField.hidden;
  };
  showToken();
  document.body.append(node);

  return new Promise((resolve) => {
    let done = false;
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      if (confirm.disabled) return;
      confirm.disabled = true;
      setText(error, '');
      const fresh = !tokenField.hidden;
      if (fresh) holdToken(field.value.trim());
      try {
        await run();
        done = true;
        node.close();
      } catch (refusal) {
        // A token that has never worked is not kept, and may be typed again.
        if (refusal.status === 401) {
          wantsToken = true;
          field.value = '';
        }
        showToken();
        setText(error, refusal.status === 401 && fresh ? `The token was refused: ${refusal.message}` : refusal.message);
        if (!tokenField.hidden) field.focus();
      }
      confirm.disabled = false;
    });
    cancel.addEventListener('click', () => node.close());
    node.addEventListener('close', () => {
      field.value = '';
      node.remove();
      resolve(done);
    });
    node.showModal();
    (tokenField.hidden ? cancel : field).focus();
  });
}

// Requests to the admin API. The token lives in this module's memory and nowhere else: it is gone with
// the page.

let token = null;
const listeners = new Set();

/** A request that was refused or failed; its message is for people. */
export class Refusal extends Error {
  /** `status` is 0 when there was no answer. */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const holdsToken = () => token !== null;

export function holdToken(value) {
  token = value;
  for (const listener of listeners) listener();
}

export const forgetToken = () => holdToken(null);

/** Calls `listener` whenever a token is taken up or forgotten. */
export const onToken = (listener) => listeners.add(listener);

export const get = (path) => call('GET', path);
export const post = (path, body) => call('POST', path, body);

/** The path of an action on a backend. */
export const backendPath = (pool, backend, action) =>
  `api/v1/pools/${encodeURIComponent(pool)}/backends/${encodeURIComponent(backend)}/${action}`;

const TIMEOUT = 10_000;

async function call(method, path, body) {
  const headers = { accept: 'application/json' };
  if (token !== null) headers.authorization = `Bearer ${token}`;
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: 'no-store',
      redirect: 'error',
      referrerPolicy: 'no-referrer',
      signal: AbortSignal.timeout(TIMEOUT),
    });
  } catch {
    throw new Refusal(0, 'homing does not answer. Nothing is known to have changed.');
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) {
    if (response.status === 401 && token !== null) forgetToken();
    throw new Refusal(response.status, answer?.error ?? `homing answered ${response.status}.`);
  }
  return answer;
}

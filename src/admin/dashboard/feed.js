// Where statuses come from: the event stream, or polling where that is not to be had.

import { get } from './client.js';

const POLL = 2000;
/** A hidden page asks seldom and keeps no stream: browsers open six connections to a server at most. */
const POLL_HIDDEN = 15_000;
/** From one attempt at a stream that was refused to the next. */
const STREAM_AGAIN = 15_000;
/** A stream that is silent for this long is taken for dead. */
const SILENCE = 6000;
const LONGEST_WAIT = 10_000;

export class Feed {
  #onStatus;
  #onState;
  #source = null;
  #heard = 0;
  #tried = -Infinity;
  #failures = 0;
  #timer = 0;
  #polling = false;
  /** Reading wants a token, which an event stream cannot carry. */
  #locked = false;

  /** `onState(state, text)`: live, polling, locked (it wants a token) or lost. */
  constructor(onStatus, onState) {
    this.#onStatus = onStatus;
    this.#onState = onState;
  }

  start() {
    document.addEventListener('visibilitychange', () => this.now());
    setInterval(() => this.#watch(), 1000);
    this.now();
  }

  /** Looks at once. */
  now() {
    clearTimeout(this.#timer);
    if (document.hidden) this.#close();
    if (!this.#polling) this.#poll();
  }

  async #poll() {
    this.#polling = true;
    let wait = document.hidden ? POLL_HIDDEN : POLL;
    try {
      const status = await get('api/v1/status');
      this.#failures = 0;
      this.#onStatus(status);
      if (!this.#source || this.#heard === 0) this.#onState('polling', '');
      this.#stream();
    } catch (refusal) {
      this.#close();
      this.#failures += 1;
      wait = Math.min(1000 * 2 ** (this.#failures - 1), LONGEST_WAIT);
      const locked = refusal.status === 401 || refusal.status === 403;
      if (locked) this.#locked = true;
      this.#onState(locked ? 'locked' : 'lost', refusal.message);
    }
    this.#polling = false;
    if (this.#heard === 0) this.#timer = setTimeout(() => this.now(), wait);
  }

  /** Opens the stream unless that was refused a moment ago. */
  #stream() {
    const soon = performance.now() - this.#tried < STREAM_AGAIN;
    if (this.#source || soon || document.hidden || this.#locked) return;
    this.#tried = performance.now();
    const source = new EventSource('api/v1/events');
    this.#source = source;
    source.addEventListener('status', (event) => {
      if (this.#source !== source) return;
      clearTimeout(this.#timer);
      this.#heard = performance.now();
      // It worked: when it breaks, there is no reason to wait.
      this.#tried = -Infinity;
      this.#onStatus(JSON.parse(event.data));
      this.#onState('live', '');
    });
    source.addEventListener('error', () => {
      if (this.#source !== source) return;
      this.#close();
      this.now();
    });
  }

  #watch() {
    if (this.#heard === 0 || performance.now() - this.#heard < SILENCE) return;
    this.#close();
    this.now();
  }

  #close() {
    this.#source?.close();
    this.#source = null;
    this.#heard = 0;
  }
}

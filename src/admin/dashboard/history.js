// The last minutes, from successive statuses: homing exports totals, the page makes rates of them.

/** How far back it goes, in seconds. */
export const WINDOW = 300;

const SEPARATOR = '\u0000';

/** The key of a counter, from its path: pool, kind, and so on. */
export const key = (...path) => path.join(SEPARATOR);

export class History {
  /** Oldest first: `at` is the uptime in seconds, which no clock change disturbs. */
  #samples = [];
  #version = null;

  push(status) {
    const last = this.#samples.at(-1);
    // A restart begins at zero, so everything before it is another story.
    if (last && (status.uptime_seconds < last.at || status.version !== this.#version)) this.#samples = [];
    if (last && status.uptime_seconds === last.at) return;
    this.#version = status.version;
    this.#samples.push({ at: status.uptime_seconds, values: totals(status) });
    while (this.#samples[0].at < status.uptime_seconds - WINDOW) this.#samples.shift();
  }

  /** Seconds that it covers. */
  get covered() {
    return this.#samples.length ? this.#samples.at(-1).at - this.#samples[0].at : 0;
  }

  /** How much a counter has grown within the last `seconds`; null when that is not known. */
  growth(counter, seconds = WINDOW) {
    const change = this.#change(counter, this.#since(seconds), this.#samples.length - 1);
    return change && change.growth;
  }

  /** By how much a counter grows per second, as an average of the last `seconds`; null when not known. */
  rate(counter, seconds = 10) {
    const change = this.#change(counter, this.#since(seconds), this.#samples.length - 1);
    return change && change.growth / change.seconds;
  }

  /** The rates of a counter over the window: pairs of age in seconds and rate, oldest first. */
  rates(counter, step = 5) {
    const points = [];
    if (this.#samples.length < 2) return points;
    const now = this.#samples.at(-1).at;
    let from = 0;
    for (let to = 1; to < this.#samples.length; to += 1) {
      // Steps lie on multiples of their length, so that old points stay as they are while new ones come.
      const sameStep = Math.floor(this.#samples[to].at / step) === Math.floor(this.#samples[from].at / step);
      if (sameStep && to < this.#samples.length - 1) continue;
      const change = this.#change(counter, from, to);
      if (change && change.seconds >= step / 2) points.push([now - this.#samples[to].at, change.growth / change.seconds]);
      from = to;
    }
    return points;
  }

  #since(seconds) {
    const start = this.#samples.at(-1)?.at - seconds;
    // One sample more than lies within, when there is one that is hardly older: a window of ten seconds
    // should not shrink to nine because a status came late.
    return this.#samples.findIndex((sample) => sample.at >= start - 0.5);
  }

  #change(counter, from, to) {
    if (from < 0 || from >= to) return null;
    const [a, b] = [this.#samples[from], this.#samples[to]];
    const [before, after] = [a.values.get(counter), b.values.get(counter)];
    if (before === undefined || after === undefined) return null;
    // A backend that was removed and came back counts from zero again.
    return { growth: after < before ? after : after - before, seconds: b.at - a.at };
  }
}

function totals(status) {
  const values = new Map([[key('requests'), status.requests_total]]);
  for (const pool of status.pools) {
    for (const group of ['verdicts', 'moves', 'ended']) {
      for (const [name, value] of Object.entries(pool[group])) values.set(key(pool.name, group, name), value);
    }
    for (const name of ['late_hits', 'full', 'ambiguous', 'learned']) values.set(key(pool.name, name), pool[name]);
    for (const backend of pool.backends) {
      values.set(key(pool.name, backend.name, 'requests'), backend.requests_total);
      values.set(key(pool.name, backend.name, 'errors'), backend.errors_total);
    }
  }
  return values;
}

/** home / (home + moved) within the window; null when no known session asked for anything. */
export function affinity(history, pools) {
  let [home, moved] = [0, 0];
  for (const pool of pools) {
    home += history.growth(key(pool.name, 'verdicts', 'home')) ?? 0;
    moved += history.growth(key(pool.name, 'verdicts', 'moved')) ?? 0;
  }
  return { kept: home + moved > 0 ? home / (home + moved) : null, home, moved };
}

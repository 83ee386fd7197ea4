// Numbers as people read them.

const WHOLE = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const ONE = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const DAY = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });

/** What stands for a value that is not known. */
export const NONE = '–';

export const count = (value) => WHOLE.format(value);

/** "1 session", "2 sessions". */
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** Per second. */
export function rate(value) {
  if (value === null) return NONE;
  if (value > 0 && value < 0.05) return '<0.1';
  return value < 10 ? ONE.format(value) : WHOLE.format(value);
}

/** A part of one; never rounds up to 100 %, since the missing bit is the point. */
export function percent(part, digits = 0) {
  if (part === null || !Number.isFinite(part)) return NONE;
  const scale = 10 ** digits;
  const shown = part < 1 ? Math.floor(part * 100 * scale) / scale : part * 100;
  return `${shown.toFixed(part === 1 || part === 0 ? 0 : digits)} %`;
}

/** A part of one, rounded. */
export const share = (part) => (Number.isFinite(part) ? `${Math.round(part * 100)} %` : NONE);

/** A latency. */
export function latency(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  if (seconds >= 1) return `${ONE.format(seconds)} s`;
  const ms = seconds * 1000;
  return `${ms < 1 ? ms.toFixed(2) : ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

/** A span of time in at most two units. */
export function span(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  const whole = Math.max(0, Math.round(seconds));
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const first = units.findIndex(([, size]) => whole >= size);
  if (first < 0) return '0 s';
  const parts = [];
  let rest = whole;
  for (const [unit, size] of units.slice(first, first + 2)) {
    const number = Math.floor(rest / size);
    rest -= number * size;
    if (number) parts.push(`${number} ${unit}`);
  }
  return parts.join(' ');
}

/** A span that is only an estimate: no more precise than it is, so that it does not flicker. */
export function roughly(seconds) {
  const unit = seconds < 60 ? 5 : seconds < 36_000 ? 60 : 3600;
  return span(Math.max(unit, Math.round(seconds / unit) * unit));
}

/** The time of day of an RFC 3339 time, with the day when it is not that of `now`. */
export function clock(time, now) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return NONE;
  const today = at.toDateString() === new Date(now).toDateString();
  return (today ? CLOCK : DAY).format(at);
}

/** Seconds from one RFC 3339 time to another. */
export const between = (from, to) => (new Date(to) - new Date(from)) / 1000;

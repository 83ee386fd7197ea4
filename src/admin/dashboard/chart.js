// Verdict rates over the last minutes: two small charts with one time axis, since what matters most
// (moved, refused) is rare beside the rest; and the same in numbers.

import { el, setAttribute, setText, svg } from './dom.js';
import { count, NONE, rate, span } from './format.js';
import { key, WINDOW } from './history.js';

const WIDTH = 600;
const HEIGHT = 100;

const MEANINGS = {
  home: 'went to their home',
  placed: 'no session yet',
  provisional: 'an id that is not known here',
  skipped: 'path without affinity',
  moved: 'home lost, placed elsewhere',
  refused: 'no backend served',
};
const PANELS = [
  { title: 'Requests per second', verdicts: ['home', 'placed', 'provisional', 'skipped'], floor: 1 },
  { title: 'Moved and refused per second', verdicts: ['moved', 'refused'], floor: 0.1 },
];

/** The view of one pool's verdicts. */
export function verdictChart(poolName) {
  const panels = PANELS.map(panel);
  const rows = Object.keys(MEANINGS).map((verdict) => verdictRow(verdict));
  const from = el('span');
  const node = el('div', { class: 'verdicts' },
    el('figure', { class: 'charts' }, ...panels.map((each) => each.node),
      el('figcaption', { class: 'axis' }, from, el('span', {}, 'now'))),
    el('table', { class: 'numbers' },
      el('caption', {}, 'Verdicts'),
      el('thead', {}, el('tr', {},
        el('th', { scope: 'col' }, 'Verdict'), el('th', { scope: 'col' }, 'per s'),
        el('th', { scope: 'col' }, 'while open, 5 min'), el('th', { scope: 'col' }, 'since start'))),
      el('tbody', {}, ...rows.map((row) => row.node))));

  return {
    node,
    update(pool, history) {
      const lines = new Map(Object.keys(MEANINGS).map((verdict) =>
        [verdict, history.rates(key(poolName, 'verdicts', verdict))]));
      for (const each of panels) each.update(lines);
      for (const row of rows) row.update(pool, history);
      setText(from, history.covered < 10 ? 'collecting since this page was opened' : `${span(WINDOW)} ago`);
    },
  };
}

function panel({ title, verdicts, floor }) {
  const lines = verdicts.map((verdict) => svg('polyline', { class: `line ${verdict}` }));
  const drawing = svg('svg', {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img',
    'aria-label': `${title} over the last minutes: ${verdicts.join(', ')}. The table of verdicts has the numbers.`,
  }, ...[0.25, 0.5, 0.75].map((part) => svg('line', { class: 'grid', x1: 0, x2: WIDTH, y1: part * HEIGHT, y2: part * HEIGHT })), ...lines);
  const top = el('span', { class: 'top-value' });
  return {
    node: el('div', { class: 'panel' }, el('p', {}, el('span', {}, title), top), drawing),
    update(rates) {
      const all = verdicts.flatMap((verdict) => rates.get(verdict).map(([, value]) => value));
      const highest = niceCeiling(Math.max(floor, ...all));
      setText(top, `top ${highest}/s`);
      verdicts.forEach((verdict, index) => {
        const points = rates.get(verdict).map(([age, value]) => {
          const x = WIDTH * (1 - age / WINDOW);
          const y = (HEIGHT - 2) * (1 - value / highest) + 1;
          return `${x.toFixed(1)},${y.toFixed(1)}`;
        });
        setAttribute(lines[index], 'points', points.join(' '));
      });
    },
  };
}

/** The least of 1, 2, 5 times a power of ten that is not below `value`. */
function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= value * 0.999);
  return Number((step * power).toPrecision(1));
}

function verdictRow(verdict) {
  const cells = [el('td'), el('td'), el('td')];
  const [now, recent, total] = cells;
  return {
    node: el('tr', { 'data-verdict': verdict },
      el('th', { scope: 'row' },
        svg('svg', { class: 'swatch', viewBox: '0 0 18 8', 'aria-hidden': 'true' },
          svg('line', { class: `line ${verdict}`, x1: 0, x2: 18, y1: 4, y2: 4 })),
        verdict, el('small', {}, MEANINGS[verdict])),
      ...cells),
    update(pool, history) {
      const counter = key(pool.name, 'verdicts', verdict);
      const growth = history.growth(counter);
      setText(now, rate(history.rate(counter)));
      setText(recent, growth === null ? NONE : count(growth));
      setText(total, count(pool.verdicts[verdict] ?? 0));
    },
  };
}

// The body of a function that lists what keeps people out: controls without a name, headings that skip a
// level, ids used twice, visible text below a contrast of 4.5 (WCAG 2.2, 1.4.3).
const faults = [];
const visible = (node) => node.checkVisibility({ visibilityProperty: true, opacityProperty: true });
for (const control of document.querySelectorAll('a, button, input, select')) {
  const name = control.getAttribute('aria-label') || control.innerText || control.labels?.[0]?.innerText;
  if (visible(control) && !name?.trim()) faults.push(`no name: ${control.outerHTML}`);
}
let level = 0;
for (const heading of document.querySelectorAll('h1, h2, h3, h4')) {
  if (!visible(heading)) continue;
  const own = Number(heading.tagName[1]);
  if (own > level + 1) faults.push(`skips a level: ${heading.outerHTML}`);
  level = own;
}
const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) faults.push(`twice: ${id}`);

const luminance = (rgb) => {
  const [r, g, b] = rgb.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const numbers = (color) => color.match(/[\d.]+/g).map(Number);
const background = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const color = numbers(getComputedStyle(at).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color.slice(0, 3);
  }
  return [255, 255, 255];
};
let looked = 0;
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const node = texts.currentNode.parentElement;
  if (!texts.currentNode.data.trim() || !visible(node) || node.closest('noscript, script, .unseen, .skip')) continue;
  looked += 1;
  const [a, b] = [luminance(numbers(getComputedStyle(node).color).slice(0, 3)), luminance(background(node))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)}: ${node.outerHTML}`);
}
if (looked < 50) faults.push(`only ${looked} texts seen`);
return faults;

// Building and changing the page. Whatever comes from the server enters as text: nothing in here, or
// anywhere else, parses markup.

const SVG = 'http://www.w3.org/2000/svg';

/** An element with these attributes and children; `null` and `false` leave an attribute out. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) setAttribute(node, name, value);
  node.append(...children);
  return node;
}

/** Changes a text only when it differs, so that nothing is announced or laid out in vain. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Changes an attribute only when it differs; `null` and `false` remove it. */
export function setAttribute(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

/** Sets a length in percent through the CSSOM, which the Content-Security-Policy allows. */
export function setPercent(node, property, part) {
  const value = `${(Math.max(0, Math.min(1, part)) * 100).toFixed(2)}%`;
  if (node.style.getPropertyValue(property) !== value) node.style.setProperty(property, value);
}

/**
 * Keeps one view per item in `parent`, in their order. A view has a `node` and an `update(item)`; one
 * that is still wanted keeps its node, and with it focus and what was unfolded. What is in `parent` up
 * to `head` is left alone.
 */
export function keyed(parent, views, items, keyOf, make, head = null) {
  const wanted = new Set(items.map(keyOf));
  for (const [key, view] of views) {
    if (wanted.has(key)) continue;
    view.node.remove();
    views.delete(key);
  }
  let next = head ? head.nextElementSibling : parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    if (!views.has(key)) views.set(key, make(item));
    const view = views.get(key);
    if (next === view.node) next = next.nextElementSibling;
    else parent.insertBefore(view.node, next);
    view.update(item);
  }
}

let announcement = 0;

/** Tells screen readers, politely; several within a moment are told together. */
export function announce(text) {
  const announcer = document.getElementById('announcer');
  if (announcement) {
    announcer.textContent += `. ${text}`;
    return;
  }
  announcer.textContent = text;
  announcement = setTimeout(() => { announcement = 0; }, 1000);
}

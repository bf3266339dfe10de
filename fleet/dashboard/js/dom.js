// Elements out of values, and a page that is changed in place instead of being replaced.
//
// Everything that comes from a node or a person becomes a text node or an attribute here; nothing in this folder parses
// HTML. There is no virtual tree: a page is built as real elements, and morph() carries the differences into what is
// shown, so that focus, selection, scrolling and open details stay where they are.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "use"]);
// Set as properties, because the attribute is only the initial value.
const PROPERTIES = new Set(["value", "checked", "disabled", "selected", "open", "indeterminate"]);
// Attributes that could run a script or load something; a URL must come from link() below.
const REFUSED = /^(on|srcdoc$|style$|formaction$|action$)/i;

/**
 * An element. `props`: attributes by name; `on`: {event: listener}; `class` may be a list. A child that is a string or a
 * number becomes a text node; null, undefined and false become nothing; lists are flattened.
 */
export function h(tag, props, ...children) {
  const element = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) {
      if (PROPERTIES.has(name)) element[name] = false;
    } else if (name === "on") {
      element.listeners = value;
      for (const event of Object.keys(value)) element.addEventListener(event, dispatch);
    } else if (name === "class") {
      element.setAttribute("class", [value].flat().filter(Boolean).join(" "));
    } else if (name === "width%" || name === "height%") {
      element.style[name.slice(0, -1)] = `${value}%`; // through the object model: a style attribute is what the policy forbids
    } else if (REFUSED.test(name)) {
      throw new Error(`${name} is not set from data`);
    } else if (name === "href" && !safeAddress(value)) {
      throw new Error(`a link to ${value} is not one of ours`);
    } else if (PROPERTIES.has(name)) {
      element[name] = value;
      if (name !== "value") element.toggleAttribute(name, Boolean(value));
    } else {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Only places inside this page, the API beside it, and our own icons. */
function safeAddress(address) {
  return /^(#|api\/v1\/)/.test(address);
}

// One listener for each kind of event, which looks up what to do when it happens: morph() can then exchange it.
function dispatch(event) {
  event.currentTarget.listeners?.[event.type]?.(event);
}

/** An icon of icons.svg; decoration, so it says nothing to a screen reader: the word stands beside it. */
export function icon(name, extra) {
  return h(
    "svg",
    { class: ["icon", extra], "aria-hidden": "true", focusable: "false" },
    h("use", { href: `#i-${name}` }),
  );
}

/** Text for screen readers alone. */
export function hidden(text) {
  return h("span", { class: "sr-only" }, text);
}

/** Makes the children of `shown` equal those of `wanted`, and keeps every element that can stay. */
export function morph(shown, wanted) {
  const focused = document.activeElement;
  const inside = shown.contains(focused);
  morphChildren(shown, wanted);
  if (!inside || focused === document.activeElement) return;
  // An element that changed its place lost the focus on the way; one that is gone leaves it to the heading, not to nobody.
  (focused.isConnected ? focused : shown.querySelector("h1"))?.focus({ preventScroll: true });
}

function morphElement(old, fresh) {
  for (const { name } of [...old.attributes]) {
    // What the person opened stays open.
    if (!fresh.hasAttribute(name) && !(name === "open" && old.tagName === "DETAILS") && name !== "style") {
      old.removeAttribute(name);
    }
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (name === "open" && old.tagName === "DETAILS") continue;
    if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const side of ["width", "height"]) {
    if (fresh.style && fresh.style[side] !== old.style[side]) old.style[side] = fresh.style[side];
  }
  for (const event of Object.keys(fresh.listeners ?? {})) {
    if (!old.listeners?.[event]) old.addEventListener(event, dispatch);
  }
  old.listeners = fresh.listeners;
  // What a person is typing is theirs.
  if ("value" in fresh && old !== document.activeElement && old.value !== fresh.value)
    old.value = fresh.value;
  if ("checked" in fresh && old.checked !== fresh.checked) old.checked = fresh.checked;
  if ("disabled" in fresh && old.disabled !== fresh.disabled) old.disabled = fresh.disabled;
  morphChildren(old, fresh);
  // A select's value only means something once its options are there.
  if (old.tagName === "SELECT" && old !== document.activeElement && old.value !== fresh.value)
    old.value = fresh.value;
}

function same(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return false;
  if (old.nodeType !== Node.ELEMENT_NODE) return true;
  return (old.dataset?.key ?? "") === (fresh.dataset?.key ?? "") && old.id === fresh.id;
}

function morphChildren(old, fresh) {
  const keyed = new Map();
  for (const child of old.children) if (child.dataset?.key) keyed.set(child.dataset.key, child);
  let at = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const key = wanted.dataset?.key;
    const known = key ? keyed.get(key) : undefined;
    if (known && known.nodeName === wanted.nodeName && known !== at) {
      old.insertBefore(known, at);
      morphElement(known, wanted);
      continue;
    }
    if (at && same(at, wanted)) {
      if (at.nodeType === Node.ELEMENT_NODE) morphElement(at, wanted);
      else if (at.data !== wanted.data) at.data = wanted.data;
      at = at.nextSibling;
    } else {
      old.insertBefore(wanted, at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

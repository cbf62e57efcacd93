// Elements without markup. Strings become text nodes, never HTML: nothing a model or a labeler wrote can run (F20).

/** el("button", {class: "go", onclick: send, "aria-pressed": false}, "Send"): attributes that are null or false are left
 *  out, except aria-* which keep "false"; children may be nodes, strings, arrays of them, or null. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

const SVG = "http://www.w3.org/2000/svg";

/** A line icon of 24 units, named in ICONS; it is decoration, so screen readers pass over it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  for (const [key, value] of [
    ["class", "icon"],
    ["viewBox", "0 0 24 24"],
    ["aria-hidden", "true"],
  ])
    svg.setAttribute(key, value);
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const ICONS = {
  undo: "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  guide: "M4 5a2 2 0 0 1 2-2h13v16H6a2 2 0 0 0-2 2zM4 21V5M8 7h7M8 11h5",
  keys: "M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M7 14h10",
  differ: "M4 6h9M4 12h16M4 18h6M17 3v6M14 6h6M15 18h5",
  skip: "M5 5l8 7-8 7zM19 5v14",
  unsafe: "M12 3 2 20h20zM12 10v4M12 17h.01",
  source: "M8 6 2 12l6 6M16 6l6 6-6 6",
  check: "M4 12l6 6L20 6",
  add: "M12 5v14M5 12h14",
  remove: "M5 5l14 14M19 5 5 19",
};

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked") node[key] = value ?? "";
    else if (value === true && !key.startsWith("aria-")) node.setAttribute(key, "");
    else if (value != null && (value !== false || key.startsWith("aria-"))) node.setAttribute(key, value);
  }
  node.append(...children.flat(Infinity).filter((c) => c != null && c !== false));
  return node;
}

export const find = (selector, root = document) => root.querySelector(selector);
export const all = (selector, root = document) => [...root.querySelectorAll(selector)];

/** Speaks to a screen reader: the region is emptied first so that the same words are heard twice. */
export function announce(words) {
  const region = find("#live");
  region.textContent = "";
  setTimeout(() => {
    region.textContent = words;
  }, 30);
}

/** 65 → "1:05", 4000 → "1:06:40". */
export function clockText(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  return shown.map((p, i) => (i ? String(p).padStart(2, "0") : p)).join(":");
}

export const letter = (index) => String.fromCharCode(65 + index);

/** A random UUID; crypto.randomUUID is missing where the page comes over plain http from another machine. */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((b) => b.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

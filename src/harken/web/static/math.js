// LaTeX as MathML. Temml (vendor/temml.js, MIT licence) reads it; what it makes is built here node by node: only MathML, no
// addresses, no style attribute, so that nothing a model wrote can run or load. What Temml cannot read stays as it was written.

import temml from "./vendor/temml.js";

const LONGEST = 5000; // characters of one formula
const MOST = 500; // formulas of one text
const NAMESPACE = "http://www.w3.org/1998/Math/MathML";
const ELEMENTS = new Set(
  ("math maction annotation menclose merror mfenced mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms " +
    "mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none semantics").split(" "),
);
const MARKS = [
  ["$$", "$$", true],
  ["\\[", "\\]", true],
  ["\\(", "\\)", false],
  ["$", "$", false],
];

/** A formula without its marks, and whether it stands on a line of its own; null where it is none. */
export function formula(text) {
  const written = text.trim();
  for (const [open, close, display] of MARKS)
    if (written.startsWith(open) && written.endsWith(close) && written.length > open.length + close.length)
      return { tex: written.slice(open.length, -close.length), display };
  return null;
}

/** Typesets the elements whose text is a formula; one in which something is marked stays as it is. */
export function typeset(spots) {
  for (const spot of spots.slice(0, MOST)) {
    const found = spot.childElementCount ? null : formula(spot.textContent);
    if (!found || found.tex.length > LONGEST) continue;
    try {
      const options = { displayMode: found.display, throwOnError: true, trust: false, maxExpand: 200, maxSize: [20, 20] };
      const made = build(temml.__renderToMathMLTree(found.tex, options));
      spot.title = spot.textContent;
      spot.replaceChildren(made);
    } catch {
      spot.classList.add("unread");
    }
  }
}

function build(node) {
  if (typeof node.text === "string" && !node.type) return document.createTextNode(node.text);
  if (!node.type) {
    const fragment = document.createDocumentFragment();
    fragment.append(...node.children.map(build));
    return fragment;
  }
  if (!ELEMENTS.has(node.type)) throw new Error(`no <${node.type}>`);
  const made = document.createElementNS(NAMESPACE, node.type);
  for (const [name, value] of Object.entries(node.attributes ?? {}))
    if (name !== "style" && !/^on|href|src|xmlns/i.test(name)) made.setAttribute(name, value);
  if (node.classes?.length) made.setAttribute("class", node.classes.filter(Boolean).join(" "));
  for (const [name, value] of Object.entries(node.style ?? {})) if (!/url\s*\(/i.test(value)) made.style[name] = value;
  made.append(...(node.children ?? []).map(build));
  return made;
}

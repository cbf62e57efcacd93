// One answer's text: rendered, as its source, or with what differs from another text marked.

import { compare } from "../diff.js";
import { el } from "../dom.js";
import { t } from "../language.js";
import { render } from "../text.js";

const LONG = { characters: 6000, lines: 90 };
let counter = 0;

const isLong = (text) => text.length > LONG.characters || text.split("\n").length > LONG.lines;

/** One answer's text: rendered, as its source, or with what differs from another text marked. */
export class AnswerText {
  constructor(text) {
    this.text = text;
    this.body = el("div", { class: "prose answer-text" });
    this.root = el("div", { class: "answer-box" }, this.body);
    if (isLong(text)) this.fold();
    this.show();
  }

  /** Shows the beginning of a long text, and a button for the rest. */
  fold() {
    const id = `answer-${(counter += 1)}`;
    this.body.id = id;
    const n = this.text.trim().split(/\s+/).length.toLocaleString("en");
    const more = el("button", { type: "button", class: "quiet more", "aria-controls": id, onclick: () => set(!open) });
    let open = false;
    const set = (next) => {
      open = next;
      this.body.classList.toggle("folded", !open);
      more.setAttribute("aria-expanded", open);
      more.textContent = open ? t("Show less") : t("Show all {n} words", { n });
    };
    set(false);
    this.body.addEventListener("focusin", () => set(true)); // what has the focus is never hidden
    this.root.append(more);
  }

  show({ source = false, against = null } = {}) {
    const root = this.body;
    if (source) root.replaceChildren(el("div", { class: "source" }, this.text));
    else root.replaceChildren(render(this.text));
    if (against !== null)
      mark(root, source ? compare(this.text, against)[0] : compare(pieces(root).text, pieces(render(against)).text)[0]);
    if (!this.text.trim()) root.replaceChildren(el("p", { class: "hint" }, t("(empty answer)")));
  }

  marked(runs) {
    this.body.replaceChildren(
      el(
        "div",
        { class: "source" },
        runs.map((run) => (run.kind === "same" ? run.text : el("mark", { class: run.kind }, run.text))),
      ),
    );
  }
}

/** The words of rendered text, a line's end between blocks, and the text nodes they are in. */
function pieces(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const nodes = [];
  let text = "";
  let block = null;
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const here = node.parentElement?.closest("p, li, td, th, pre, blockquote, .source") ?? root;
    const apart = block !== null && (here !== block || node.previousSibling?.nodeName === "BR");
    if (apart) text += "\n";
    nodes.push({ node, start: text.length });
    text += node.data;
    block = here;
  }
  return { text, nodes };
}

/** Wraps in <mark> what the runs, which cover the same text, call other than "same". */
function mark(root, runs) {
  const { nodes } = pieces(root);
  let at = 0;
  const spans = runs.map((run) => ({ kind: run.kind, from: at, to: (at += run.text.length) }));
  for (const { node, start } of nodes) {
    const end = start + node.data.length;
    node.replaceWith(
      ...spans
        .filter((s) => s.from < end && s.to > start)
        .map((s) => {
          const piece = node.data.slice(Math.max(s.from, start) - start, Math.min(s.to, end) - start);
          return s.kind === "same" || !piece.trim() ? piece : el("mark", { class: s.kind }, piece);
        }),
    );
  }
}

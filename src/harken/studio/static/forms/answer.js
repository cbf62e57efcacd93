// One answer's text: rendered, as its source, or with what differs from another text marked.

import { compare } from "../diff.js";
import { el } from "../dom.js";
import { render } from "../text.js";

/** One answer's text: rendered, as its source, or with what differs from another text marked. */
export class AnswerText {
  constructor(text) {
    this.text = text;
    this.root = el("div", { class: "prose answer-text" });
    this.show();
  }

  show({ source = false, against = null } = {}) {
    if (source) this.root.replaceChildren(el("div", { class: "source" }, this.text));
    else this.root.replaceChildren(render(this.text));
    if (against !== null)
      mark(this.root, source ? compare(this.text, against)[0] : compare(pieces(this.root).text, pieces(render(against)).text)[0]);
    if (!this.text.trim()) this.root.replaceChildren(el("p", { class: "hint" }, "(empty answer)"));
  }

  marked(runs) {
    this.root.replaceChildren(
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

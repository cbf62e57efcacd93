// The forms that are mostly writing: an ideal answer, an improved one, a new prompt.

import { compare, merge } from "../diff.js";
import { announce, el, icon, uuid } from "../dom.js";
import { render } from "../text.js";
import { AnswerText } from "./answer.js";
import { About, Notes, choiceRow, frame, textField, words } from "./parts.js";

const count = (text) => text.trim().split(/\s+/).filter(Boolean).length;

/** What the three have in common: one long text, counted, with a preview. */
class Writing {
  constructor(task, form, changed) {
    this.task = task;
    this.changed = () => {
      this.paint();
      changed();
    };
    this.about = new About(form, task, changed);
    this.notes = form.notes ? new Notes(changed) : null;
    this.max = form.text.max_chars;
  }

  paint() {}
  get text() {
    return this.field.area.value;
  }
  get status() {
    const n = count(this.text);
    return n === 1 ? "1 word" : `${n} words`;
  }
  get action() {
    return "Submit";
  }
  get enter() {
    return "Ctrl ⏎";
  }
  problem() {
    return this.text.trim() ? null : "Nothing is written yet.";
  }
  answer() {
    return { text: this.text, ...this.about.answer(), notes: this.notes?.value ?? "" };
  }
  draft() {
    return { answer: this.answer() };
  }

  restore({ answer = {} }) {
    this.about.restore(answer);
    this.notes?.restore(answer.notes);
    this.field.area.value = answer.text ?? this.field.area.value;
    this.paint();
  }

  focus() {
    this.field.area.focus({ preventScroll: true });
  }
  toggleSource() {}

  keys() {
    return [
      { keys: ["Ctrl+Enter"], typing: true, shown: "Ctrl Enter", words: "submit while writing", run: () => this.onsubmit?.() },
      {
        keys: ["Escape"],
        typing: true,
        shown: "Esc",
        words: "leave the text, so that single keys work; W goes back",
        run: (e) => e.target.blur(),
      },
      { keys: ["w"], shown: "W", words: "write", run: () => this.focus() },
    ];
  }

  static summary(answer) {
    const n = count(answer.text);
    return n === 1 ? "1 word" : `${n} words`;
  }
}

/** Demonstrate: write the answer that a good assistant would give. */
export class Demonstrate extends Writing {
  constructor(task, form, changed) {
    super(task, form, changed);
    this.field = textField("The ideal answer", {
      rows: 14,
      max: this.max,
      changed: this.changed,
      id: "text",
      hint: "Markdown works. Skip the prompt if you cannot tell what it asks for.",
    });
    this.view = el("div", { class: "prose preview" });
    this.preview = el("details", { class: "about", ontoggle: () => this.paint() }, el("summary", {}, "Preview"), this.view);
    this.root = frame(task, this.about, this.notes, [el("div", { class: "card writing" }, this.field.root, this.preview)]);
  }

  paint() {
    if (this.preview?.open) this.view.replaceChildren(render(this.text));
  }
}

/** Edit: improve an answer. Unchanged means that it is good as it is. */
export class Edit extends Writing {
  constructor(task, form, changed) {
    super(task, form, changed);
    [this.original] = task.completions;
    this.before = new AnswerText(this.original);
    this.field = textField("Your version", {
      rows: 14,
      max: this.max,
      value: this.original,
      changed: this.changed,
      id: "text",
      hint: "Change what should be better. Submit it unchanged if it is good as it is.",
    });
    this.after = el("div", { class: "source", "aria-label": "Your changes", role: "group" });
    this.root = frame(task, this.about, this.notes, [
      el(
        "div",
        { class: "cards two" },
        el("article", { class: "card" }, el("header", {}, el("h2", {}, "The answer")), this.before.root),
        el(
          "div",
          { class: "card writing" },
          this.field.root,
          el("div", { class: "changes" }, el("h3", {}, "Your changes"), this.after),
        ),
      ),
    ]);
    this.paint();
  }

  paint() {
    if (!this.after) return;
    const renamed = (runs, kind) => merge(runs.map((r) => ({ text: r.text, kind: r.kind === "same" ? "same" : kind })));
    const [gone, added] = compare(this.original, this.text);
    const same = this.text === this.original;
    this.before.show();
    if (!same) this.before.marked(renamed(gone, "gone"));
    this.after.parentElement.hidden = same;
    this.after.replaceChildren(...renamed(added, "added").map((r) => (r.kind === "same" ? r.text : el("ins", {}, r.text))));
  }

  get status() {
    return this.text === this.original ? "unchanged" : super.status;
  }

  keys() {
    return [...super.keys(), { keys: ["o"], shown: "O", words: "back to the original text", run: () => this.reset() }];
  }

  reset() {
    this.former = this.text === this.original ? this.former : this.text; // pressed twice, it brings the changes back
    this.field.area.value = this.text === this.original ? (this.former ?? this.original) : this.original;
    this.changed();
    announce(this.text === this.original ? "The original text is back" : "Your changes are back");
  }
}

const KINDS = { plain: "Plain", few_shot: "Few-shot", user: "User-based" };
const KIND_HINTS = {
  plain: "Any task that you can think of; the more varied, the better.",
  few_shot: "An instruction, and two to nine examples of a query with its response.",
  user: "A prompt for a use case that somebody told us about.",
};

/** Write a prompt: plain, few-shot with examples, or for a user's use case. */
export class WritePrompt extends Writing {
  constructor(task, form, changed) {
    super(task, form, changed);
    this.kind = choiceRow(
      "Kind of prompt",
      form.prompt_kinds.map((k) => ({ value: k, label: KINDS[k] ?? words(k) })),
      () => this.changed(),
    );
    this.hint = el("p", { class: "hint" });
    this.field = textField("The prompt", { rows: 6, max: this.max, changed: this.changed, id: "text" });
    this.pairs = el("ol", { class: "examples" });
    this.examples = el(
      "fieldset",
      { class: "few-shot" },
      el("legend", {}, "Examples"),
      this.pairs,
      el("button", { type: "button", class: "quiet", onclick: () => this.addPair() }, icon("add"), " Add an example"),
    );
    this.root = frame(task, this.about, this.notes, [
      el(
        "div",
        { class: "card writing" },
        el("div", { class: "field" }, el("span", { class: "label" }, "Kind"), this.kind.root, this.hint),
        this.field.root,
        this.examples,
      ),
    ]);
    this.asked = task.ask?.kind ?? null;
    this.setKind(this.asked ?? "plain");
    this.about.root.open = matchMedia("(min-width: 46.01rem)").matches; // on a phone the text comes first
  }

  setKind(kind) {
    this.kind.choose(kind);
    this.paint();
  }

  addPair({ query = "", response = "" } = {}) {
    const n = this.pairs.children.length;
    if (n >= 9) return;
    const id = `pair-${uuid()}`;
    const row = el(
      "li",
      {},
      textField("Query", { rows: 2, value: query, changed: this.changed, id: `${id}-q` }).root,
      textField("Response", { rows: 2, value: response, changed: this.changed, id: `${id}-r` }).root,
      el(
        "button",
        {
          type: "button",
          class: "quiet icon-only",
          "aria-label": "Remove this example",
          onclick: () => {
            row.remove();
            this.changed();
          },
        },
        icon("remove"),
      ),
    );
    this.pairs.append(row);
    if (!this.filling) row.querySelector("textarea").focus();
    this.changed();
  }

  paint() {
    if (!this.hint) return;
    const few = this.kind.value === "few_shot";
    this.hint.textContent = KIND_HINTS[this.kind.value] ?? "";
    this.examples.hidden = !few;
    this.field.root.querySelector("label").textContent = few ? "The instruction" : "The prompt";
    if (few && !this.pairs.children.length && !this.filling) {
      this.filling = true;
      this.addPair();
      this.addPair();
      this.filling = false;
    }
  }

  get pairList() {
    return [...this.pairs.children].map((li) => {
      const [query, response] = li.querySelectorAll("textarea");
      return { query: query.value, response: response.value };
    });
  }

  problem() {
    const short = super.problem();
    if (short || this.kind.value !== "few_shot") return short;
    if (this.pairList.length < 2) return "A few-shot prompt needs at least two examples.";
    return this.pairList.some((p) => !p.query.trim() || !p.response.trim()) ? "An example has an empty query or response." : null;
  }

  answer() {
    return { kind: this.kind.value, ...super.answer(), examples: this.kind.value === "few_shot" ? this.pairList : [] };
  }

  restore(draft) {
    this.pairs.replaceChildren();
    this.filling = true;
    for (const pair of draft.answer?.examples ?? []) this.addPair(pair);
    this.filling = false;
    this.kind.choose(draft.answer?.kind ?? this.asked ?? "plain");
    super.restore(draft);
  }
}

// Improve an answer. Unchanged means that it is good as it is.

import { compare, merge } from "../diff.js";
import { announce, el } from "../dom.js";
import { AnswerText } from "./answer.js";
import { frame, textField } from "./parts.js";
import { Writing } from "./writing.js";
import { t } from "../language.js";

export default class Edit extends Writing {
  constructor(task, form, changed) {
    super(task, form, changed, { useCase: false });
    [this.original] = task.completions;
    this.max += this.original.length; // so much may be added
    this.before = new AnswerText(this.original);
    this.field = textField(t("Your version"), {
      rows: 14,
      max: this.max,
      value: this.original,
      changed: this.changed,
      id: "text",
      hint: t("Change what should be better. Submit it unchanged if it is good as it is."),
    });
    this.after = el("div", { class: "source", "aria-label": t("Your changes"), role: "group" });
    this.root = frame(task, this.about, this.notes, [
      el(
        "div",
        { class: "cards two" },
        el("article", { class: "card" }, el("header", {}, el("h2", {}, t("The answer"))), this.before.root),
        el(
          "div",
          { class: "card writing" },
          this.field.root,
          el("div", { class: "changes" }, el("h3", {}, t("Your changes")), this.after),
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
    return this.text === this.original ? t("unchanged") : super.status;
  }

  keys() {
    return [...super.keys(), { keys: ["o"], shown: "O", words: "back to the original text", run: () => this.reset() }];
  }

  reset() {
    this.former = this.text === this.original ? this.former : this.text; // pressed twice, it brings the changes back
    this.field.area.value = this.text === this.original ? (this.former ?? this.original) : this.original;
    this.changed();
    announce(this.text === this.original ? t("The original text is back") : t("Your changes are back"));
  }
}

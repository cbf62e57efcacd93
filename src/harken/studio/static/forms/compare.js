// Two answers side by side: which is better, and by how much; or a tie.

import { announce, el, letter } from "../dom.js";
import { AnswerText } from "./answer.js";
import { About, Notes, badge, choiceRow, frame } from "./parts.js";
import { t } from "../language.js";

export default class Compare {
  constructor(task, form, changed) {
    this.about = new About(form, task, changed, { useCase: false });
    this.notes = form.notes ? new Notes(changed) : null;
    this.texts = task.completions;
    this.labels = form.strength.labels;
    this.max = form.strength.max;
    this.marked = false;
    this.source = false;
    this.views = this.texts.map((text) => new AnswerText(text));
    const values = Array.from({ length: 2 * this.max + 1 }, (_, i) => i - this.max);
    this.choice = choiceRow(
      t("Which answer is better?"),
      values.map((value, i) => ({
        value,
        name: this.words(value),
        class: value < 0 ? "first" : value > 0 ? "second" : t("tie"),
        label: [el("span", { class: "digit" }, String(i + 1)), el("span", { class: "words" }, this.short(value))],
      })),
      (value) => {
        this.paint();
        announce(this.words(value));
        changed();
      },
      { class: "choices strength" },
    );
    this.cards = this.views.map((view, i) =>
      el(
        "article",
        { class: "card", tabindex: -1, "aria-label": t("Answer {letter}", { letter: letter(i) }) },
        el("header", {}, badge(i), el("h2", {}, t("Answer {letter}", { letter: letter(i) }))),
        view.root,
      ),
    );
    this.root = frame(task, this.about, this.notes, [
      el("div", { class: "cards two" }, this.cards),
      el(
        "div",
        { class: "verdict" },
        el("p", { class: "sides", "aria-hidden": "true" }, el("span", {}, t("A is better")), el("span", {}, t("B is better"))),
        this.choice.root,
      ),
    ]);
  }

  short(value) {
    return value === 0 ? t("tie") : t(this.labels[Math.abs(value) - 1].replace(/ ?better$/, "") || "better");
  }
  words(value) {
    return value === 0 ? t("A and B are about equal") : t("{letter} is {words}", { letter: value < 0 ? "A" : "B", words: t(this.labels[Math.abs(value) - 1]) });
  }

  keys() {
    const values = Array.from({ length: 2 * this.max + 1 }, (_, i) => String(i + 1));
    return [
      {
        keys: values,
        shown: `1 … ${values.length}`,
        words: t("1: A is {words} … {n}: B is {words}", { words: t(this.labels.at(-1)), n: values.length }),
        run: (_, key) => this.choice.choose(Number(key) - 1 - this.max, true),
      },
      { keys: ["t", "0"], shown: "T", words: t("a tie"), run: () => this.choice.choose(0, true) },
      { keys: ["ArrowLeft"], shown: "← →", words: "towards A, towards B", run: () => this.move(-1) },
      { keys: ["ArrowRight"], run: () => this.move(1) },
      { keys: ["d"], shown: "D", words: "mark the differences", run: () => this.differ() },
    ];
  }

  move(by) {
    this.choice.choose(Math.min(this.max, Math.max(-this.max, (this.choice.value ?? 0) + by)), true);
  }

  paint() {
    this.cards.forEach((card, i) => card.classList.toggle("preferred", (i === 0 ? -1 : 1) * (this.choice.value ?? 0) > 0));
  }

  differ() {
    this.marked = !this.marked;
    this.show();
    announce(this.marked ? t("Differences are marked") : t("Differences are not marked"));
  }

  toggleSource() {
    this.source = !this.source;
    this.show();
  }

  show() {
    this.views.forEach((view, i) => view.show({ source: this.source, against: this.marked ? this.texts[1 - i] : null }));
  }

  get status() {
    if (this.choice.value !== null) return this.words(this.choice.value);
    return matchMedia("(hover: none)").matches ? t("which is better?") : t("1 to {n}, or arrows", { n: 2 * this.max + 1 });
  }
  get action() {
    return t("Submit");
  }
  problem() {
    return this.choice.value === null ? t("Choose which answer is better, or a tie.") : null;
  }
  answer() {
    return { preference: this.choice.value, ...this.about.answer(), notes: this.notes?.value ?? "" };
  }
  draft() {
    return { answer: this.answer() };
  }

  restore({ answer = {} }) {
    this.about.restore(answer);
    this.notes?.restore(answer.notes);
    this.choice.choose(answer.preference ?? null);
    this.paint();
  }

  focus() {
    this.cards[0].focus({ preventScroll: true });
  }

  static summary(answer) {
    return answer.preference === 0 ? t("a tie") : answer.preference < 0 ? t("A is better") : t("B is better");
  }
}

// Questions of a lead's own: about the item, each answer, or each turn of the assistant's. Scales and choices are rows of buttons,
// several choices are boxes, spans are marked in the text with a pointer or, by keyboard, sentence by sentence.

import { announce, el, letter } from "../dom.js";
import { t } from "../language.js";
import { AnswerText } from "./answer.js";
import { About, Notes, badge, choiceRow, frame } from "./parts.js";

/** How many characters (not UTF-16 units) come before an index: the server counts those. */
const characters = (text, index) => [...text.slice(0, index)].length;

class Choice {
  constructor(question, changed) {
    const scale = question.type === "scale";
    const values = scale
      ? Array.from({ length: question.max - question.min + 1 }, (_, i) => ({ value: question.min + i, label: String(question.min + i) }))
      : question.options.map((o) => ({ value: o.name, label: o.label }));
    this.values = values.map((v) => v.value);
    this.row = choiceRow(question.label, values, changed, { class: scale ? "choices" : "choices words" });
    const ends = scale && (question.low || question.high);
    this.root = [
      this.row.root,
      ends && el("p", { class: "ends", "aria-hidden": "true" }, el("span", {}, question.low ?? ""), el("span", {}, question.high ?? "")),
    ];
  }
  get value() {
    return this.row.value;
  }
  set value(value) {
    this.row.choose(value ?? null);
  }
  press(digit) {
    if (digit < 1 || digit > this.values.length) return;
    this.row.choose(this.values[digit - 1], true);
  }
  get missing() {
    return this.value === null;
  }
}

class Several {
  constructor(question, changed) {
    this.boxes = question.options.map((o) =>
      el("label", { class: "option" }, el("input", { type: "checkbox", value: o.name, "data-through": true, onchange: changed }), el("span", {}, o.label)),
    );
    this.inputs = this.boxes.map((label) => label.querySelector("input"));
    this.changed = changed;
    this.root = el("div", { class: "options" }, this.boxes);
  }
  get value() {
    return this.inputs.filter((i) => i.checked).map((i) => i.value);
  }
  set value(value) {
    for (const input of this.inputs) input.checked = (value ?? []).includes(input.value);
  }
  press(digit) {
    const input = this.inputs[digit - 1];
    if (!input) return;
    input.checked = !input.checked;
    this.changed();
  }
  missing = false;
}

/** Marks in an answer: select words and choose the label; or choose a label and then sentences, by keyboard. */
class Spans {
  constructor(question, changed, text) {
    Object.assign(this, { question, changed, text, spans: [] });
    this.body = el("div", { class: "spanned", tabindex: 0, role: "group", "aria-label": t("The answer, to be marked"), dir: "auto" });
    this.list = el("ul", { class: "marks" });
    this.buttons = question.options.map((o) => el("button", { type: "button", onclick: () => this.mark(o.name) }, o.label));
    this.sentence = el(
      "select",
      { "aria-label": t("Sentence to mark") },
      el("option", { value: "" }, t("what is selected")),
      this.sentences().map(([from, to]) => el("option", { value: `${from} ${to}` }, text.slice(from, to).trim().slice(0, 60))),
    );
    this.root = [this.body, el("div", { class: "row" }, this.sentence, this.buttons), this.list];
    this.paint();
  }

  sentences() {
    return [...this.text.matchAll(/[^\n.!?。！？؟]+[.!?。！？؟]*\s*/g)].filter((m) => m[0].trim()).map((m) => [m.index, m.index + m[0].trimEnd().length]);
  }

  /** What is selected with a pointer, as [from, to) in the text. */
  selected() {
    const selection = document.getSelection();
    if (!selection?.rangeCount || selection.isCollapsed) return null;
    const range = selection.getRangeAt(0);
    if (!this.body.contains(range.commonAncestorContainer)) return null;
    const before = document.createRange();
    before.setStart(this.body, 0);
    before.setEnd(range.startContainer, range.startOffset);
    const from = before.toString().length;
    return [from, from + range.toString().length];
  }

  mark(label) {
    const chosen = this.sentence.value ? this.sentence.value.split(" ").map(Number) : this.selected();
    if (!chosen) return void announce(t("Select some words of the answer first, or choose a sentence."));
    this.spans.push({ from: chosen[0], to: chosen[1], label });
    this.spans.sort((a, b) => a.from - b.from || a.to - b.to);
    document.getSelection()?.removeAllRanges();
    this.paint();
    announce(t("Marked: {words}", { words: this.text.slice(...chosen) }));
    this.changed();
  }

  paint() {
    const cuts = [...new Set([0, this.text.length, ...this.spans.flatMap((s) => [s.from, s.to])])].sort((a, b) => a - b);
    this.body.replaceChildren(
      ...cuts.slice(0, -1).map((from, i) => {
        const words = this.text.slice(from, cuts[i + 1]);
        return this.spans.some((s) => s.from <= from && cuts[i + 1] <= s.to) ? el("mark", { class: "changed" }, words) : words;
      }),
    );
    this.list.replaceChildren(
      ...this.spans.map((span) =>
        el(
          "li",
          {},
          el("span", { class: "tag" }, this.question.options.find((o) => o.name === span.label)?.label ?? span.label),
          el("q", {}, this.text.slice(span.from, span.to)),
          el("button", { type: "button", class: "quiet", onclick: () => this.remove(span) }, t("Remove")),
        ),
      ),
    );
  }

  remove(span) {
    this.spans = this.spans.filter((s) => s !== span);
    this.paint();
    this.changed();
  }

  get value() {
    return this.spans.map((s) => ({ from: characters(this.text, s.from), to: characters(this.text, s.to), label: s.label }));
  }
  set value(value) {
    const units = [...this.text];
    const index = (n) => units.slice(0, n).join("").length;
    this.spans = (value ?? []).map((s) => ({ from: index(s.from), to: index(s.to), label: s.label }));
    this.paint();
  }
  press(digit) {
    const option = this.question.options[digit - 1];
    if (option) this.mark(option.name);
  }
  missing = false;
}

const FIELDS = { scale: Choice, one: Choice, several: Several, spans: Spans };

export default class Questions {
  constructor(task, form, changed) {
    this.about = new About(form, task, changed);
    this.notes = form.notes ? new Notes(changed) : null;
    this.changed = changed;
    this.fields = [];
    this.at = 0;
    const asked = (about) => form.questions.filter((q) => q.about === about);
    this.views = task.completions.map((text) => new AnswerText(text));
    this.source = false;
    this.turns = (task.prompt?.messages ?? []).map((m, i) => [m, i]).filter(([m]) => m.role === "assistant" && asked("turn").length);
    const cards = task.completions.map((text, i) =>
      this.card(t("Answer {letter}", { letter: letter(i) }), badge(i), this.views[i].root, asked("answer"), ["answers", i], text),
    );
    const turns = this.turns.map(([m, n], i) =>
      this.card(t("Turn {n} of the assistant", { n: i + 1 }), null, new AnswerText(m.content).root, asked("turn"), ["turns", n], m.content),
    );
    const item = asked("item").length ? [this.card(t("About all of it"), null, null, asked("item"), ["item"], "")] : [];
    this.root = frame(task, this.about, this.notes, [el("div", { class: "cards two" }, turns, cards, item)]);
    this.paint();
  }

  card(title, mark, body, questions, where, text) {
    const sets = questions.map((question) => {
      const field = new FIELDS[question.type](question, () => this.touched(), text);
      const at = this.fields.length;
      const root = el(
        "fieldset",
        { onfocusin: () => this.go(at, false), onpointerdown: () => this.go(at, false) },
        el("legend", {}, question.label, question.required === false && el("span", { class: "hint" }, ` ${t("(if it applies)")}`)),
        field.root,
      );
      this.fields.push({ question, field, root, where, title });
      return root;
    });
    return el("article", { class: "card", tabindex: -1, "aria-label": title }, el("header", {}, mark, el("h2", {}, title)), body, el("div", { class: "asked" }, sets));
  }

  touched() {
    this.paint();
    this.changed();
  }

  /** Takes a question in hand. */
  go(at, move = true) {
    this.at = Math.min(this.fields.length - 1, Math.max(0, at));
    this.paint();
    if (!move) return;
    const { root, question } = this.fields[this.at];
    root.scrollIntoView({ block: "center" });
    root.querySelector("[tabindex='0'], input, button")?.focus({ preventScroll: true });
    announce(question.label);
  }

  paint() {
    this.fields.forEach(({ root }, i) => root.classList.toggle("current", i === this.at));
  }

  keys() {
    const digits = [..."1234567890"];
    return [
      { keys: digits, shown: "1 … 9", words: t("the grade, or the choice by its place"), run: (_, key) => this.press(Number(key)) },
      { keys: ["ArrowDown"], shown: "↑ ↓", words: t("another question"), run: () => this.go(this.at + 1) },
      { keys: ["ArrowUp"], run: () => this.go(this.at - 1) },
    ];
  }

  press(digit) {
    const { field, question } = this.fields[this.at];
    if (digit === 0 && (question.type !== "scale" || question.min > 0)) return;
    const shift = question.type === "scale" ? 1 - question.min : 0;
    field.press(digit + shift);
    if (field instanceof Choice && !field.missing) this.go(this.next(this.at));
  }

  /** The next question without an answer, or the one in hand. */
  next(at) {
    const open = this.fields.findIndex((f, i) => i > at && this.open(f));
    return open < 0 ? at : open;
  }
  open({ field, question }) {
    return question.required !== false && field.missing;
  }

  get status() {
    const open = this.fields.filter((f) => this.open(f)).length;
    return open ? t("{n} still to answer", { n: open }) : t("all answered");
  }
  get action() {
    return t("Submit");
  }

  problem() {
    const at = this.fields.findIndex((f) => this.open(f));
    if (at < 0) return null;
    this.go(at);
    return `${this.fields[at].title}: ${this.fields[at].question.label}`;
  }

  said() {
    const said = { item: {}, answers: this.views.map(() => ({})), turns: this.turns.map(([, turn]) => ({ turn })) };
    for (const { question, field, where } of this.fields) {
      const [what, index] = where;
      const place = what === "item" ? said.item : what === "answers" ? said.answers[index] : said.turns.find((one) => one.turn === index);
      const { value } = field;
      if (value !== null) place[question.name] = value;
    }
    return said;
  }

  answer() {
    return { said: this.said(), ...this.about.answer(), notes: this.notes?.value ?? "" };
  }
  draft() {
    return { answer: this.answer(), at: this.at };
  }

  restore({ answer = {}, at = 0 }) {
    this.about.restore(answer);
    this.notes?.restore(answer.notes);
    const said = answer.said ?? {};
    for (const { question, field, where } of this.fields) {
      const [what, index] = where;
      const place = what === "item" ? said.item : what === "answers" ? said.answers?.[index] : said.turns?.find((one) => one.turn === index);
      field.value = place?.[question.name];
    }
    this.go(at, false);
  }

  focus() {
    this.root.querySelector(".card")?.focus({ preventScroll: true });
  }

  toggleSource() {
    this.source = !this.source;
    for (const view of this.views) view.show({ source: this.source });
  }

  static summary(answer) {
    const { item, answers, turns } = answer.said;
    const n = [item, ...answers, ...turns].reduce((sum, one) => sum + Object.keys(one).filter((k) => k !== "turn").length, 0);
    return t("{n} questions answered", { n });
  }
}

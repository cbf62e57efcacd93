// What the forms that are mostly writing have in common: one long text, counted, with its keys.

import { About, Notes } from "./parts.js";
import { t } from "../language.js";

const count = (text) => text.trim().split(/\s+/).filter(Boolean).length;

/** A form with one long text. `useCase` says whether it asks for the prompt's use case. */
export class Writing {
  constructor(task, form, changed, { useCase = true } = {}) {
    this.task = task;
    this.changed = () => {
      this.paint();
      changed();
    };
    this.about = new About(form, task, changed, { useCase });
    this.notes = form.notes ? new Notes(changed) : null;
    this.max = form.text.max_chars;
  }

  paint() {}
  get text() {
    return this.field.area.value;
  }
  get status() {
    const n = count(this.text);
    return n === 1 ? t("1 word") : t("{n} words", { n });
  }
  get action() {
    return t("Submit");
  }
  get enter() {
    return "Ctrl ⏎";
  }
  problem() {
    return this.text.trim() ? null : t("Nothing is written yet.");
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
    return n === 1 ? t("1 word") : t("{n} words", { n });
  }
}

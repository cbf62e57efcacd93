// Rank answers, nothing else: best to worst, ties welcome.

import { el, letter } from "../dom.js";
import { Ranking, differences, orderText } from "./order.js";
import { About, Notes, frame } from "./parts.js";
import { t } from "../language.js";

export default class Rank {
  constructor(task, form, changed) {
    this.about = new About(form, task, changed, { useCase: false });
    this.notes = form.notes ? new Notes(changed) : null;
    this.ties = form.ranking.ties;
    this.ranking = new Ranking(task, changed);
    this.against = differences(task.completions.length, (reference) => this.differ(reference));
    this.source = false;
    const title = el("h2", { class: "over" }, this.ties ? t("Best is 1; ties are welcome") : t("Best is 1; no ties"));
    this.root = frame(task, this.about, this.notes, [
      el("div", { class: "stepper" }, title, this.against.root),
      this.ranking.root,
    ]);
  }

  keys() {
    return this.ranking.keys((reference) => this.differ(reference));
  }

  differ(reference) {
    this.against.show(reference);
    this.ranking.show({ source: this.source, reference });
  }

  toggleSource() {
    this.source = !this.source;
    this.ranking.show({ source: this.source, reference: this.ranking.reference });
  }

  get status() {
    return this.ranking.status;
  }
  get action() {
    return t("Submit");
  }

  problem() {
    const { ranks } = this.ranking;
    const open = ranks.indexOf(null);
    const tied = this.ties ? -1 : ranks.findIndex((rank, i) => ranks.indexOf(rank) !== i);
    if (open < 0 && tied < 0) return null;
    this.ranking.focus(open < 0 ? tied : open);
    return open < 0
      ? t("Answer {letter} is tied; this project wants no ties.", { letter: letter(tied) })
      : t("Answer {letter} has no rank yet.", { letter: letter(open) });
  }

  answer() {
    return { ranks: this.ranking.answer(), ...this.about.answer(), notes: this.notes?.value ?? "" };
  }
  draft() {
    return { answer: { ...this.answer(), ranks: this.ranking.ranks } };
  }

  restore({ answer = {} }) {
    this.about.restore(answer);
    this.notes?.restore(answer.notes);
    this.ranking.restore(answer.ranks);
  }

  focus() {
    this.ranking.focus(this.ranking.at);
  }

  static summary(answer) {
    return orderText(answer.ranks);
  }
}

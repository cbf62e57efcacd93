// InstructGPT's whole task: rate every answer, then rank them all.

import { announce, el, letter } from "../dom.js";
import { contradictions } from "../ranking.js";
import { About, Notes, frame } from "./parts.js";
import { Ranking, differences, orderText } from "./order.js";
import { Ratings } from "./rate.js";
import { t } from "../language.js";

export default class RateAndRank {
  constructor(task, form, changed) {
    this.count = task.completions.length;
    this.about = new About(form, task, () => {
      this.ratings?.refresh();
      changed();
    });
    this.notes = form.notes ? new Notes(changed) : null;
    const touched = () => {
      this.paint();
      changed();
    };
    this.ratings = new Ratings(task, form.rating, {
      applies: (flag) => !flag.only || this.about.flags.includes(flag.only),
      changed: touched,
    });
    this.ranking = new Ranking(task, touched);
    this.steps = [...task.completions.keys(), "rank"].map((step) =>
      el("button", { type: "button", class: "step", onclick: () => this.go(step) }),
    );
    this.notice = el("p", { class: "notice", role: "status", hidden: true });
    this.against = differences(this.count, (reference) => this.differ(reference));
    this.tools = this.against.root;
    this.source = false;
    this.root = frame(task, this.about, this.notes, [
      el("div", { class: "stepper" }, el("nav", { class: "steps", "aria-label": t("Steps") }, this.steps), this.tools),
      this.ratings.root,
      this.ranking.root,
      this.notice,
    ]);
    this.go(0, false);
  }

  keys() {
    const ranking = () => this.step === "rank";
    const { min, max } = this.ratings.scale;
    const digits = Array.from({ length: Math.min(9, max) - min + 1 }, (_, i) => String(min + i));
    return ranking()
      ? [
          ...this.ranking.keys((reference) => this.differ(reference)),
          { keys: ["b"], shown: "B", words: "back to the ratings", run: () => this.go(this.count - 1) },
        ]
      : [
          { keys: digits, shown: `${digits[0]} … ${digits.at(-1)}`, words: "overall quality", run: (_, key) => this.ratings.rate(Number(key)) },
          ...this.ratings.flags.filter((f) => this.ratings.keys.has(f.name)).map((f) => ({
            keys: [this.ratings.keys.get(f.name)],
            shown: this.ratings.keys.get(f.name).toUpperCase(),
            words: f.label,
            run: () => this.ratings.toggle(f.name),
          })),
          {
            keys: ["ArrowRight"],
            shown: "← →",
            words: "next or previous answer",
            run: () => this.go(this.step + 1 === this.count ? "rank" : this.step + 1),
          },
          { keys: ["ArrowLeft"], run: () => this.go(Math.max(0, this.step - 1)) },
        ];
  }

  /** Shows one answer to rate, or the ranking. */
  go(step, move = true) {
    if (step === "rank" && this.ratings.missing >= 0 && move) return this.complain();
    this.step = step;
    const ranking = step === "rank";
    this.ratings.root.hidden = ranking;
    this.ranking.root.hidden = !ranking;
    this.tools.hidden = !ranking;
    this.root.classList.toggle("at-rank", ranking);
    if (!ranking) this.ratings.show(step);
    this.paint();
    this.onstep?.();
    if (!move) return undefined;
    if (ranking) this.ranking.focus(this.ranking.at);
    else this.ratings.cards[step].root.focus({ preventScroll: true });
    this.root.ownerDocument.defaultView.scrollTo(0, 0);
    announce(
      ranking ? t("Rank all {n} answers. Ties are welcome.", { n: this.count }) : t("Answer {letter}, {n} of {k}", { letter: letter(step), n: step + 1, k: this.count }),
    );
    return undefined;
  }

  /** Enter on a page that is not the last goes on instead of submitting; true when it did. */
  advance() {
    if (this.step === "rank") return false;
    if (this.ratings.overall[this.step] === null) this.complain(this.step);
    else if (this.ratings.missing < 0) this.go("rank");
    else
      this.go(
        this.ratings.overall.indexOf(null, this.step + 1) >= 0
          ? this.ratings.overall.indexOf(null, this.step + 1)
          : this.ratings.missing,
      );
    return true;
  }

  complain(step = this.ratings.missing) {
    if (step !== this.step) this.go(step);
    this.onproblem?.(this.needs(step));
    return undefined;
  }

  needs(step) {
    const { min, max } = this.ratings.scale;
    return t("Answer {letter} needs an overall rating, {min} to {max}.", { letter: letter(step), min, max });
  }

  paint() {
    if (!this.steps) return;
    const { overall } = this.ratings;
    this.steps.forEach((button, i) => {
      const rank = i === this.count;
      const done = rank ? this.ranking.done : overall[i] !== null;
      const state = `${done} ${overall[i]} ${(rank ? "rank" : i) === this.step}`;
      if (button.dataset.state === state) return; // every key paints: what is the same stays
      button.dataset.state = state;
      button.replaceChildren(rank ? t("Rank") : letter(i), !rank && done ? el("span", { class: "given" }, String(overall[i])) : "");
      button.setAttribute("aria-current", (rank ? "rank" : i) === this.step ? "step" : "false");
      button.setAttribute(
        "aria-label",
        rank ? t("Rank all answers") : [t("Rate answer {letter}", { letter: letter(i) }), done ? t("rated {n}", { n: overall[i] }) : ""].filter(Boolean).join(", "),
      );
      button.classList.toggle("done", done);
    });
    this.ranking.cards.forEach((card, i) => {
      const words = overall[i] === null ? "" : t("rated {n}", { n: overall[i] });
      if (card.note.textContent !== words) card.note.textContent = words;
    });
    const against = contradictions(overall, this.ranking.ranks);
    this.notice.hidden = this.step !== "rank" || !against.length;
    if (against.length) {
      const [[i, j]] = against;
      this.notice.textContent = [
        t("You rated {first} {a} and {second} {b}, but rank {second} above {first}.", { first: letter(i), second: letter(j), a: overall[i], b: overall[j] }),
        against.length > 1 ? t("So it is with {n} more.", { n: against.length - 1 }) : "",
        t("Both are kept; change one if you like."),
      ].filter(Boolean).join(" ");
    }
  }

  differ(reference) {
    this.against.show(reference);
    this.ranking.show({ source: this.source, reference });
  }

  toggleSource() {
    this.source = !this.source;
    this.ratings.cards.forEach((c) => c.view.show({ source: this.source }));
    this.ranking.show({ source: this.source, reference: this.ranking.reference });
  }

  get status() {
    if (this.step === "rank") return this.ranking.status;
    return t("{n} of {k} rated", { n: this.count - this.ratings.overall.filter((o) => o === null).length, k: this.count });
  }

  get action() {
    return this.step === "rank" ? t("Submit") : t("Next");
  }

  problem() {
    if (this.ratings.missing >= 0) {
      this.complain();
      return this.needs(this.ratings.missing);
    }
    const open = this.ranking.ranks.indexOf(null);
    if (open < 0) return null;
    this.ranking.focus(open);
    return t("Answer {letter} has no rank yet.", { letter: letter(open) });
  }

  answer() {
    return {
      ratings: this.ratings.answer(),
      ranks: this.ranking.answer(),
      ...this.about.answer(),
      notes: this.notes?.value ?? "",
    };
  }

  /** The answer as far as it is given, and where the labeler was. */
  draft() {
    return { answer: { ...this.answer(), ranks: this.ranking.ranks }, step: this.step };
  }

  restore({ answer = {}, step }) {
    this.about.restore(answer);
    this.notes?.restore(answer.notes);
    this.ratings.restore(answer.ratings);
    this.ranking.restore(answer.ranks);
    this.go(step ?? (answer.ranks && this.ratings.missing < 0 ? "rank" : 0), false);
  }

  focus() {
    if (this.step === "rank") this.ranking.focus(this.ranking.at);
    else this.ratings.cards[this.step].root.focus({ preventScroll: true });
  }

  /** The stored answer in words, for the confirmation. */
  static summary(answer) {
    return orderText(answer.ranks);
  }
}

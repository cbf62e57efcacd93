// All K answers put in order, ties encouraged: the task "rank", and page two of InstructGPT's. Four ways in, one state: digits, arrows with
// Alt, buttons on each answer, and dragging its letter between the rows (WCAG 2.5.7: dragging is never the only way; F10).

import { announce, el, icon, letter } from "../dom.js";
import { complete, dense, nextOpen, rows } from "../ranking.js";
import { AnswerText } from "./answer.js";
import { badge, choiceRow } from "./parts.js";
import { t } from "../language.js";

export class Ranking {
  constructor(task, changed) {
    this.texts = task.completions;
    this.count = this.texts.length;
    this.ranks = this.texts.map(() => null);
    this.changed = changed;
    this.at = 0;
    this.reference = null; // the answer that the others are compared with
    this.cards = this.texts.map((text, i) => this.card(text, i));
    this.standing = el("div", { class: "standing", role: "group", "aria-label": t("Order so far") });
    this.cells = Array.from({ length: this.count + 1 }, (_, r) => this.cell(r));
    this.standing.append(...this.cells.map((c) => c.root));
    this.root = el(
      "div",
      { class: "ranking" },
      el(
        "div",
        { class: "cards" },
        this.cards.map((c) => c.root),
      ),
      this.standing,
    );
    this.paint();
  }

  card(text, index) {
    const view = new AnswerText(text);
    const choice = choiceRow(
      t("Rank of answer {letter}", { letter: letter(index) }),
      Array.from({ length: this.count }, (_, i) => ({
        value: i + 1,
        label: String(i + 1),
        name: i === 0 ? t("Rank {n}, best", { n: 1 }) : t("Rank {n}", { n: i + 1 }),
      })),
      (rank) => this.set(index, rank, false),
    );
    const note = el("span", { class: "note" });
    const root = el(
      "article",
      {
        class: "card",
        tabindex: -1,
        "aria-label": t("Answer {letter}", { letter: letter(index) }),
        onfocusin: () => this.focus(index, false),
        onpointerdown: () => this.focus(index, false),
      },
      el("header", {}, badge(index), el("h2", {}, t("Answer {letter}", { letter: letter(index) })), note),
      view.root,
      el("footer", {}, choice.root),
    );
    return { root, view, choice, note };
  }

  /** A row of the order: rank 0 is the pool of answers not yet ranked. Pressing it puts the answer in hand there. */
  cell(rank) {
    const chips = el("div", { class: "chips" });
    const label = rank ? t("Put the answer in hand on rank {n}", { n: rank }) : t("Take the rank from the answer in hand");
    const root = el(
      "div",
      { class: rank ? "cell" : "cell pool", "data-rank": rank },
      el(
        "button",
        {
          type: "button",
          class: "place",
          "aria-label": label,
          title: label,
          onclick: () => this.set(this.at, rank || null, false),
        },
        rank ? String(rank) : "?",
      ),
      chips,
    );
    return { root, chips };
  }

  chip(index) {
    return el(
      "button",
      {
        type: "button",
        class: `badge chip tone${index % 9}`,
        "aria-label": t("Answer {letter}, {words}. Go to it", { letter: letter(index), words: this.words(index) }),
        "aria-current": index === this.at,
        onclick: () => this.focus(index),
        onpointerdown: (event) => this.drag(event, index),
      },
      letter(index),
    );
  }

  /** Drags with the mouse, a pen or a finger; a press without movement is a click. */
  drag(event, index) {
    const chip = event.currentTarget;
    const from = [event.clientX, event.clientY];
    let over = null;
    const under = (e) =>
      document
        .elementsFromPoint(e.clientX, e.clientY)
        .map((n) => n.closest?.(".cell"))
        .find((n) => n && this.standing.contains(n));
    const move = (e) => {
      const way = [e.clientX - from[0], e.clientY - from[1]];
      if (Math.hypot(...way) < 5 && !chip.classList.contains("dragged")) return;
      chip.classList.add("dragged");
      chip.style.translate = `${way[0]}px ${way[1]}px`;
      over?.classList.remove("over");
      over = under(e);
      over?.classList.add("over");
    };
    const end = (e) => {
      chip.removeEventListener("pointermove", move);
      chip.style.translate = "";
      chip.classList.remove("dragged");
      over?.classList.remove("over");
      if (over && e.type === "pointerup") this.set(index, Number(over.dataset.rank) || null, false);
    };
    chip.setPointerCapture(event.pointerId);
    chip.addEventListener("pointermove", move);
    for (const type of ["pointerup", "pointercancel"]) chip.addEventListener(type, end, { once: true });
  }

  /** Takes an answer in hand: digits and Alt+arrows then mean this one. */
  focus(index, move = true) {
    this.at = index;
    this.cards.forEach((c, i) => c.root.classList.toggle("held", i === index));
    this.standing
      .querySelectorAll(".chip")
      .forEach((chip) => chip.setAttribute("aria-current", chip.textContent === letter(index)));
    if (!move) return;
    this.cards[index].root.focus({ preventScroll: true });
    this.cards[index].root.scrollIntoView({ block: "nearest" });
  }

  step(by) {
    this.focus((this.at + by + this.count) % this.count);
  }

  /** Gives an answer a rank, or takes it (null); `go` moves on to the next one without. */
  set(index, rank, go = true) {
    if (rank !== null && (rank < 1 || rank > this.count)) return;
    this.ranks[index] = rank;
    this.paint();
    const left = this.ranks.filter((r) => r === null).length;
    announce(`Answer ${letter(index)}: ${this.words(index)}. ${left ? `${left} to go` : t("All are ranked")}.`);
    this.changed();
    const next = go && rank !== null ? nextOpen(this.ranks, index) : -1;
    this.focus(next >= 0 ? next : index, next >= 0);
  }

  /** Moves the answer in hand up (-1) or down (1) by one rank. */
  shift(by) {
    const now = this.ranks[this.at];
    this.set(this.at, now === null ? (by < 0 ? 1 : this.count) : Math.min(this.count, Math.max(1, now + by)), false);
  }

  words(index) {
    if (this.ranks[index] === null) return t("no rank yet");
    const same = this.ranks.flatMap((r, j) => (r === this.ranks[index] && j !== index ? [letter(j)] : []));
    return `rank ${this.ranks[index]}${same.length ? `, tied with ${same.join(" and ")}` : ""}`;
  }

  paint() {
    this.cards.forEach((c, i) => {
      c.choice.choose(this.ranks[i]);
      c.root.classList.toggle("ranked", this.ranks[i] !== null);
    });
    this.cells.forEach((cell, rank) =>
      cell.chips.replaceChildren(...this.ranks.flatMap((r, i) => ((r ?? 0) === rank ? [this.chip(i)] : []))),
    );
  }

  /** Marks what differs from one answer (null: nothing), or shows the sources. */
  show({ source = false, reference = null }) {
    this.reference = reference;
    this.cards.forEach((c, i) => {
      c.view.show({ source, against: reference === null || i === reference ? null : this.texts[reference] });
      c.root.classList.toggle("reference", i === reference);
    });
  }

  get done() {
    return complete(this.ranks);
  }

  /** How far the ranking is, in words. */
  get status() {
    const ranked = this.ranks.filter((r) => r !== null).length;
    return ranked === this.count ? orderText(this.ranks) : t("{n} of {k} ranked", { n: ranked, k: this.count });
  }

  /** Its keys; `differ(reference)` marks what differs from one answer. */
  keys(differ) {
    const digits = Array.from({ length: this.count }, (_, i) => String(i + 1));
    const words = "rank of the answer in hand; the same digit ties";
    return [
      { keys: digits, shown: `1 … ${this.count}`, words, run: (_, key) => this.set(this.at, Number(key)) },
      { keys: ["0", "Backspace"], shown: "0", words: "take the rank away", run: () => this.set(this.at, null) },
      { keys: ["ArrowRight", "ArrowDown"], shown: "← ↑ ↓ →", words: "take another answer in hand", run: () => this.step(1) },
      { keys: ["ArrowLeft", "ArrowUp"], run: () => this.step(-1) },
      { keys: ["Alt+ArrowUp"], shown: "Alt ↑", words: "move it up a rank", run: () => this.shift(-1) },
      { keys: ["Alt+ArrowDown"], shown: "Alt ↓", words: "move it down a rank", run: () => this.shift(1) },
      {
        keys: ["d"],
        shown: "D",
        words: "mark what differs from the answer in hand",
        run: () => differ(this.reference === null ? this.at : null),
      },
    ];
  }
  answer() {
    return dense(this.ranks);
  }

  restore(ranks = []) {
    this.ranks = this.texts.map((_, i) => ranks[i] ?? null);
    this.paint();
  }
}

/** The choice of the answer that the others are compared with: {root, show(reference)}; null is none. */
export function differences(count, chosen) {
  const select = el(
    "select",
    { id: "reference", onchange: (e) => chosen(e.target.value === "" ? null : Number(e.target.value)) },
    el("option", { value: "" }, t("off")),
    Array.from({ length: count }, (_, i) => el("option", { value: i }, t("from {letter}", { letter: letter(i) }))),
  );
  const root = el("div", { class: "tools" }, el("label", { for: "reference" }, icon("differ"), " Differences"), select);
  const show = (reference) => {
    select.value = reference ?? "";
    announce(reference === null ? t("Differences are not marked") : t("Marked: what differs from answer {letter}", { letter: letter(reference) }));
  };
  return { root, show };
}

/** "C > B = D > A": the order in one line. */
export const orderText = (ranks) =>
  rows(ranks)
    .map((row) => row.map(letter).join(" = "))
    .join(" > ");

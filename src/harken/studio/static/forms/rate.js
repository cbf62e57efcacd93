// Page one of InstructGPT's task: every answer by itself, overall 1–7 and eleven flags (arXiv 2203.02155, Table 3).

import { announce, el, letter } from "../dom.js";
import { AnswerText } from "./answer.js";
import { badge, choiceRow } from "./parts.js";
import { t } from "../language.js";

// A letter for each flag of the form, free of the page's own keys.
export const FLAG_KEYS = {
  fails_task: "f",
  inappropriate: "i",
  hallucination: "h",
  satisfies_constraint: "c",
  sexual: "x",
  violent: "v",
  encourages_harm: "e",
  denigrates: "p",
  harmful_advice: "a",
  opinion: "o",
  moral_judgment: "m",
};

const FOLDED = "harken-flags-folded";
const kept = (name) => {
  try {
    return localStorage.getItem(name) === "yes";
  } catch {
    return false; // a browser that keeps nothing
  }
};
const keep = (name, value) => {
  try {
    if (value) localStorage.setItem(name, "yes");
    else localStorage.removeItem(name);
  } catch {
    /* it stays for this task */
  }
};

const TAKEN = "bdgnoqrsuwz"; // the page's own; O is a flag's while rating

/** A letter for every flag: the built-in ones theirs, own ones the first free letter of their label, or any that is free. */
export function flagKeys(flags) {
  const keys = new Map(flags.filter((f) => FLAG_KEYS[f.name]).map((f) => [f.name, FLAG_KEYS[f.name]]));
  const used = new Set([...TAKEN.replace("o", ""), ...keys.values()]);
  for (const { name, label } of flags) {
    if (keys.has(name)) continue;
    const letter = [...label.toLowerCase(), ..."abcdefghijklmnopqrstuvwxyz"].find((c) => /[a-z]/.test(c) && !used.has(c));
    if (!letter) break; // more flags than letters
    keys.set(name, letter);
    used.add(letter);
  }
  return keys;
}

/** The single ratings of one task. `applies(flag)` says whether a flag is asked; `changed` is called after every change. */
export class Ratings {
  constructor(task, { scale, flags }, { applies, changed }) {
    Object.assign(this, { scale, flags, applies, changed, at: 0, keys: flagKeys(flags) });
    this.cards = task.completions.map((text, i) => this.card(text, i));
    this.root = el(
      "div",
      { class: "ratings" },
      this.cards.map((c) => c.root),
    );
  }

  card(text, index) {
    const view = new AnswerText(text);
    const steps = Array.from({ length: this.scale.max - this.scale.min + 1 }, (_, i) => this.scale.min + i);
    const overall = choiceRow(
      `${this.scale.label} of answer ${letter(index)}, ${this.scale.min} ${this.scale.low}, ${this.scale.max} ${this.scale.high}`,
      steps.map((value) => ({ value, label: String(value) })),
      () => this.changed(),
    );
    const boxes = new Map(
      this.flags.map((flag) => [
        flag.name,
        el("input", { type: "checkbox", "data-through": true, onchange: () => this.told() }),
      ]),
    );
    const labels = this.flags.map((flag) =>
      el(
        "label",
        { class: "flag", "data-flag": flag.name },
        boxes.get(flag.name),
        el("span", {}, t(flag.label)),
        el("kbd", {}, this.keys.get(flag.name)?.toUpperCase() ?? ""),
      ),
    );
    const conditional = this.flags.filter((f) => f.only).map((f) => f.label);
    const [needed] = this.flags.filter((f) => f.only).map((f) => f.only.replaceAll("_", " "));
    const later = needed
      ? el("p", { class: "hint later" }, t("{flags}: only of prompts marked {mark} (Q).", { flags: conditional.map((f) => t(f)).join(", "), mark: needed }))
      : null;
    const count = el("span", { class: "count" });
    const list = el(
      "details",
      { class: "flag-list", open: !kept(FOLDED), ontoggle: () => this.fold(!list.open) },
      el("summary", {}, t("Tick what is true of it"), count),
      el("fieldset", {}, el("legend", { class: "heard" }, t("Tick what is true of it")), labels, later),
    );
    const root = el(
      "article",
      { class: "rate", tabindex: -1, "aria-label": t("Answer {letter}", { letter: letter(index) }) },
      el("div", { class: "card" }, el("header", {}, badge(index), el("h2", {}, t("Answer {letter}", { letter: letter(index) }))), view.root),
      el(
        "div",
        { class: "panel" },
        el(
          "div",
          { class: "overall" },
          el("h3", {}, t(this.scale.label)),
          overall.root,
          el(
            "p",
            { class: "ends", "aria-hidden": "true" },
            el("span", {}, `${this.scale.min} ${t(this.scale.low)}`),
            el("span", {}, `${t(this.scale.high)} ${this.scale.max}`),
          ),
        ),
        list,
      ),
    );
    return { root, view, overall, boxes, labels, later, list, count };
  }

  /** Folded or not is kept for all answers and later tasks. */
  fold(folded) {
    keep(FOLDED, folded);
    for (const { list } of this.cards) list.open = !folded;
  }

  show(at) {
    this.at = at;
    this.cards.forEach((c, i) => {
      c.root.hidden = i !== at;
    });
    this.refresh();
  }

  /** Flags that do not apply to this prompt are not asked. A folded list says how many are ticked. */
  refresh() {
    for (const { labels, later, boxes, count } of this.cards) {
      const ticked = this.flags.filter((f) => this.applies(f) && boxes.get(f.name).checked).length;
      count.textContent = ticked ? ` · ${ticked}` : "";
      labels.forEach((label, i) => {
        label.hidden = !this.applies(this.flags[i]);
      });
      if (later) later.hidden = this.flags.every((f) => this.applies(f));
    }
  }

  rate(value) {
    this.cards[this.at].overall.choose(value, true);
    announce(t("Answer {letter}: {value} of {max}", { letter: letter(this.at), value, max: this.scale.max }));
  }

  toggle(name) {
    const flag = this.flags.find((f) => f.name === name);
    if (!flag || !this.applies(flag)) return;
    const box = this.cards[this.at].boxes.get(name);
    box.checked = !box.checked;
    announce(`${t(flag.label)}: ${box.checked ? t("yes") : t("no")}`);
    this.told();
  }

  told() {
    this.refresh();
    this.changed();
  }

  get overall() {
    return this.cards.map((c) => c.overall.value);
  }

  /** The first answer without an overall rating, or -1. */
  get missing() {
    return this.overall.indexOf(null);
  }

  answer() {
    return this.cards.map((c) => ({
      overall: c.overall.value,
      flags: Object.fromEntries(this.flags.map((f) => [f.name, this.applies(f) ? c.boxes.get(f.name).checked : null])),
    }));
  }

  restore(ratings = []) {
    ratings.forEach((r, i) => {
      this.cards[i]?.overall.choose(r.overall ?? null);
      for (const [name, value] of Object.entries(r.flags ?? {})) {
        const box = this.cards[i]?.boxes.get(name);
        if (box) box.checked = value === true;
      }
    });
    this.refresh();
  }
}

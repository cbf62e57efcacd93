// Write a prompt: plain, few-shot with examples, or for a user's use case.

import { el, icon, uuid } from "../dom.js";
import { choiceRow, frame, textField, words } from "./parts.js";
import { Writing } from "./writing.js";
import { t } from "../language.js";

const KINDS = { plain: "Plain", few_shot: "Few-shot", user: "User-based" };
const KIND_HINTS = {
  plain: "Any task that you can think of; the more varied, the better.",
  few_shot: "An instruction, and two to nine examples of a query with its response.",
  user: "A prompt for a use case that somebody told us about.",
};

export default class WritePrompt extends Writing {
  constructor(task, form, changed) {
    super(task, form, changed);
    this.kind = choiceRow(
      t("Kind of prompt"),
      form.prompt_kinds.map((k) => ({ value: k, label: KINDS[k] ?? words(k) })),
      () => this.changed(),
    );
    this.hint = el("p", { class: "hint" });
    this.field = textField(t("The prompt"), { rows: 6, max: this.max, changed: this.changed, id: "text" });
    this.pairs = el("ol", { class: "examples" });
    this.examples = el(
      "fieldset",
      { class: "few-shot" },
      el("legend", {}, t("Examples")),
      this.pairs,
      el("button", { type: "button", class: "quiet", onclick: () => this.addPair() }, icon("add"), ` ${t("Add an example")}`),
    );
    this.root = frame(task, this.about, this.notes, [
      el(
        "div",
        { class: "card writing" },
        el("div", { class: "field" }, el("span", { class: "label" }, t("Kind")), this.kind.root, this.hint),
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
      textField(t("Query"), { rows: 2, value: query, changed: this.changed, id: `${id}-q` }).root,
      textField(t("Response"), { rows: 2, value: response, changed: this.changed, id: `${id}-r` }).root,
      el(
        "button",
        {
          type: "button",
          class: "quiet icon-only",
          "aria-label": t("Remove this example"),
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
    this.field.root.querySelector("label").textContent = few ? "The instruction" : t("The prompt");
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
    if (this.pairList.length < 2) return t("A few-shot prompt needs at least two examples.");
    return this.pairList.some((p) => !p.query.trim() || !p.response.trim()) ? t("An example has an empty query or response.") : null;
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

// What the forms share: conversations, answers with marks, choices in a row, the prompt's flags, notes.

import { all, el, letter } from "../dom.js";
import { render } from "../text.js";
import { t } from "../language.js";

const SPEAKER = { system: "System", user: "User", assistant: "Assistant", tool: "Tool" };

/** The conversation to be answered, as turns; one user turn alone needs no name. */
export function conversation(prompt) {
  const named = prompt.messages.length > 1 || prompt.messages[0].role !== "user";
  return el(
    "div",
    { class: "conversation" },
    prompt.messages.map((m) =>
      el(
        "div",
        { class: `turn ${m.role}` },
        named && el("p", { class: "speaker" }, t(SPEAKER[m.role])),
        m.content && el("div", { class: "prose" }, m.role === "tool" ? el("pre", { tabindex: 0 }, el("code", {}, m.content)) : render(m.content)),
        m.tool_calls && el("pre", { class: "calls", tabindex: 0, "aria-label": t("tool call"), role: "group" }, el("code", {}, m.tool_calls.map(callText).join("\n"))),
      ),
    ),
  );
}

/** A tool call as the model made it: name(arguments). */
function callText({ function: made = {} }) {
  const { name, arguments: given = "" } = made;
  return `${name}(${typeof given === "string" ? given : JSON.stringify(given)})`;
}

/** A row of buttons of which one is chosen: role radio, arrows inside, digits from outside. `options` are
 *  {value, label, name?}: `label` is seen, `name` heard. */
export function choiceRow(title, options, changed, attributes = {}) {
  let value = null;
  const buttons = options.map((o) =>
    el(
      "button",
      {
        type: "button",
        role: "radio",
        "aria-checked": "false",
        "aria-label": o.name ?? null,
        "data-through": true,
        class: o.class ?? null,
        onclick: () => choose(o.value, true),
      },
      o.label,
    ),
  );
  const root = el(
    "div",
    { role: "radiogroup", "aria-label": title, class: "choices", ...attributes, onkeydown: arrows },
    buttons,
  );

  function arrows(event) {
    const right = document.dir === "rtl" ? -1 : 1;
    const step = { ArrowLeft: -right, ArrowUp: -1, ArrowRight: right, ArrowDown: 1 }[event.key];
    if (!step || event.altKey || event.ctrlKey) return;
    event.preventDefault();
    const at = options.findIndex((o) => o.value === value);
    const next = at < 0 ? 0 : Math.min(options.length - 1, Math.max(0, at + step));
    choose(options[next].value, true);
    buttons[next].focus();
  }

  function choose(next, tell = false) {
    const at = options.findIndex((o) => o.value === next);
    if (at < 0 && next !== null) return; // a key, or a draft of another form, beyond what is offered
    value = next;
    buttons.forEach((b, i) => {
      b.setAttribute("aria-checked", i === at);
      b.tabIndex = i === Math.max(0, at) ? 0 : -1;
    });
    if (tell) changed?.(value);
  }

  choose(null);
  return {
    root,
    get value() {
      return value;
    },
    choose,
  };
}

/** A labelled text field. `rows` makes it a tall one. */
export function textField(label, { rows = 3, max = null, hint = null, value = "", changed, id, placeholder = null }) {
  const area = el("textarea", {
    id,
    rows,
    maxlength: max,
    value,
    placeholder,
    "aria-describedby": hint ? `${id}-hint` : null,
    oninput: changed,
  });
  const root = el(
    "div",
    { class: "field" },
    el("label", { for: id }, label),
    area,
    hint && el("p", { class: "hint", id: `${id}-hint` }, hint),
  );
  return { root, area };
}

/** t("About this prompt"): the flags of the labeling instructions and, where wanted, the use case, closed until wanted. */
export class About {
  constructor(form, task, changed, { useCase = true } = {}) {
    const flags = form.prompt_flags.map((f) =>
      el(
        "label",
        { class: "flag" },
        el("input", { type: "checkbox", value: f.name, "data-through": true, onchange: () => this.changed() }),
        el("span", {}, t(f.label)),
      ),
    );
    this.usesCase = useCase;
    this.select = el(
      "select",
      { id: "use-case", onchange: () => this.changed() },
      el("option", { value: "" }, t("not said")),
      form.use_cases.map((u) => el("option", { value: u }, t(words(u)))),
    );
    this.count = el("span", { class: "count" });
    this.root = el(
      "details",
      { class: "about" },
      el("summary", {}, t("About this prompt"), this.count, el("kbd", {}, "Q")),
      this.usesCase && el("div", { class: "inline field" }, el("label", { for: "use-case" }, t("Use case")), this.select),
      el("fieldset", {}, el("legend", {}, t("Tick what applies")), el("div", { class: "flags" }, flags)),
    );
    this.tell = changed;
    this.restore({ use_case: task.prompt?.use_case ?? task.ask?.use_case ?? null, prompt_flags: [] });
  }

  get flags() {
    return all("input:checked", this.root)
      .map((i) => i.value)
      .sort();
  }
  get useCase() {
    return this.select.value || null;
  }

  changed() {
    this.count.textContent = this.flags.length ? ` ${this.flags.length}` : "";
    this.tell?.(this);
  }

  restore({ prompt_flags: flags = [], use_case: useCase }) {
    for (const input of all("input", this.root)) input.checked = flags.includes(input.value);
    if (useCase !== undefined) this.select.value = useCase ?? "";
    this.changed();
  }

  answer() {
    return { prompt_flags: this.flags, ...(this.usesCase && { use_case: this.useCase }) };
  }

  toggle() {
    this.root.open = !this.root.open;
    this.root.querySelector(this.root.open ? "select, input" : "summary").focus();
  }
}

/** Free text beside the answer, closed until wanted. */
export class Notes {
  constructor(changed) {
    const { root, area } = textField(t("Notes"), { rows: 2, max: 4000, changed, id: "notes" });
    this.area = area;
    this.root = el("details", { class: "about" }, el("summary", {}, t("Notes"), el("kbd", {}, "N")), root);
  }

  get value() {
    return this.area.value;
  }

  restore(value) {
    this.area.value = value ?? "";
    if (value) this.root.open = true;
  }

  open() {
    this.root.open = true;
    this.area.focus();
  }
}

/** The frame of every form: the prompt beside the work. */
export function frame(task, about, notes, work) {
  return el(
    "div",
    { class: `task ${task.kind}` },
    el(
      "section",
      { class: "prompt", "aria-label": t("Prompt") },
      el("h2", { class: "over" }, task.prompt ? t("Prompt") : t("What to write")),
      task.prompt
        ? conversation(task.prompt)
        : el("div", { class: "prose" }, render(task.ask?.text || t("Write a prompt that you would really ask."))),
      about.root,
      notes?.root,
    ),
    el("section", { class: "work", "aria-label": t("Your answer") }, work),
  );
}

export const words = (name) => ({ open_qa: "open QA", closed_qa: "closed QA" })[name] ?? name.replaceAll("_", " ");
export const badge = (index) => el("span", { class: `badge tone${index % 9}`, "aria-hidden": "true" }, letter(index));

// One table of keys: what is in it works, and is what the help shows. Single-key shortcuts can be switched off
// (WCAG 2.1.4) and are silent while somebody types.

import { all, el, find } from "./dom.js";

const SWITCH = "harken:keys";
const TYPING =
  'textarea, select, [contenteditable], input:not([type="radio"], [type="checkbox"], [type="range"], [type="button"])';

export class Keys {
  constructor() {
    this.tables = [];
    this.on = localStorage.getItem(SWITCH) !== "off";
    document.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** Rows of {keys: ["z"], shown: "Z", words: "undo …", run(event)}; returns how to take them out again. A row with `typing`
   *  also works in a text field. Later tables win. */
  add(title, rows) {
    const table = { title, rows };
    this.tables.push(table);
    return () => {
      this.tables = this.tables.filter((t) => t !== table);
    };
  }

  pressed(event) {
    if (event.isComposing || event.defaultPrevented || find("dialog[open]")) return;
    const typing = event.target.matches?.(TYPING);
    const name = nameOf(event);
    const single = name.length === 1;
    if (single && !this.on) return;
    for (const { rows } of [...this.tables].reverse()) {
      for (const row of rows) {
        if (!row.keys.includes(name) || (typing && !row.typing)) continue;
        if (name === "Enter" && event.target.matches?.("button:not([data-through]), a, summary")) return;
        if (row.run(event) !== false) event.preventDefault();
        return;
      }
    }
  }

  /** Fills the help dialog with what works at this moment. */
  help() {
    const dialog = find("#keys");
    const seen = new Set();
    const sections = [...this.tables]
      .reverse()
      .map(({ title, rows }) => [title, rows.filter((r) => r.shown && !seen.has(r.shown) && seen.add(r.shown))]);
    find(".body", dialog).replaceChildren(
      ...sections
        .filter(([, rows]) => rows.length)
        .flatMap(([title, rows]) => [
          el("h3", {}, title),
          el(
            "dl",
            { class: "keys" },
            rows.map((r) =>
              el(
                "div",
                {},
                el(
                  "dt",
                  {},
                  r.shown.split(" ").map((k) => el("kbd", {}, k)),
                ),
                el("dd", {}, r.words),
              ),
            ),
          ),
        ]),
      el(
        "label",
        { class: "switch" },
        el("input", {
          type: "checkbox",
          checked: this.on,
          onchange: (event) => this.turn(event.target.checked),
        }),
        " Single-key shortcuts are on",
      ),
    );
    dialog.showModal();
  }

  turn(on) {
    this.on = on;
    localStorage.setItem(SWITCH, on ? "on" : "off");
    document.documentElement.classList.toggle("quiet-keys", !on);
  }
}

function nameOf(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}${key}`;
}

/** Buttons with data-close close the dialog that they are in; so does a press outside of it. */
export function wireDialogs() {
  for (const dialog of all("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
    });
  }
}

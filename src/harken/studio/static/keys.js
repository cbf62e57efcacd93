// One table of keys: what is in it works, and is what the help shows. Single-key shortcuts can be switched off
// (WCAG 2.1.4) and are silent while somebody types.

import { all, el, find } from "./dom.js";
import { t } from "./language.js";

const SWITCH = "harken:keys";
const MOVED = "harken:keys-moved"; // {"s": "k"}: what S does, K does
const TYPING =
  'textarea, select, [contenteditable], input:not([type="radio"], [type="checkbox"], [type="range"], [type="button"])';

export class Keys {
  constructor() {
    this.tables = [];
    this.on = localStorage.getItem(SWITCH) !== "off";
    this.moved = JSON.parse(localStorage.getItem(MOVED) ?? "{}");
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
    for (const name of namesOf(event)) {
      const meant = this.meant(name);
      const row = meant && this.row(meant, typing);
      if (!row) continue;
      if (name.length === 1 && !this.on) return;
      if (name === "Enter" && event.target.matches?.("button:not([data-through]), a, summary")) return;
      if (event.repeat && !name.startsWith("Arrow")) return void event.preventDefault(); // a key held down submits once
      if (row.run(event, meant) !== false) event.preventDefault();
      return;
    }
  }

  row(name, typing) {
    for (const { rows } of [...this.tables].reverse())
      for (const row of rows) if (row.keys.includes(name) && (row.typing || !typing)) return row;
    return null;
  }

  /** The table's key that a pressed one stands for; null where its key was moved elsewhere. */
  meant(name) {
    const moved = Object.entries(this.moved).find(([, to]) => to === name);
    if (moved) return moved[0];
    return name in this.moved ? null : name;
  }

  /** Puts a key's shortcut on another key; what was there takes its place, so that no shortcut is lost. */
  move(key, to) {
    const now = this.moved[key] ?? key;
    const there = this.meant(to);
    if (there && there !== key && this.row(there, false)) this.moved[there] = now;
    this.moved[key] = to;
    for (const [from, at] of Object.entries(this.moved)) if (from === at) delete this.moved[from];
    localStorage.setItem(MOVED, JSON.stringify(this.moved));
    this.relabel();
  }

  reset() {
    this.moved = {};
    localStorage.removeItem(MOVED);
    this.relabel();
  }

  /** How a key is shown: where it is now. */
  shown(words) {
    return words
      .split(" ")
      .map((word) => (word.length === 1 && this.moved[word.toLowerCase()]?.toUpperCase()) || word)
      .join(" ");
  }

  /** Every key that is printed on the page says where its shortcut is. */
  relabel() {
    for (const kbd of all("kbd")) {
      kbd.dataset.key ??= kbd.textContent;
      kbd.textContent = this.shown(kbd.dataset.key);
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
          el("h3", {}, t(title)),
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
                  this.shown(r.shown)
                    .split(" ")
                    .map((k) => el("kbd", { "data-key": k }, k)),
                ),
                el("dd", {}, t(r.words), r.keys.length && r.keys[0].length === 1 && /[a-z]/.test(r.keys[0]) && this.changer(r)),
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
        ` ${t("Single-key shortcuts are on")}`,
      ),
      Object.keys(this.moved).length
        ? el("button", { type: "button", onclick: () => (this.reset(), this.help()) }, t("All keys as they were"))
        : "",
    );
    if (!dialog.open) dialog.showModal();
  }

  /** A button that waits for the key which its row shall have from now on. */
  changer(row) {
    const [key] = row.keys;
    const button = el("button", { type: "button", class: "quiet change-key", "aria-label": t("Another key for: {words}", { words: t(row.words) }) }, t("change"));
    button.addEventListener("click", () => {
      button.textContent = t("press a key");
      button.addEventListener(
        "keydown",
        (event) => {
          event.preventDefault();
          event.stopPropagation();
          if (event.key.length === 1 && event.key.trim()) this.move(key, event.key.toLowerCase());
          this.help();
        },
        { once: true },
      );
    });
    return button;
  }

  turn(on) {
    this.on = on;
    localStorage.setItem(SWITCH, on ? "on" : "off");
    document.documentElement.classList.toggle("quiet-keys", !on);
  }
}

const ZEROS = "٠۰०০๐０"; // Arabic, Persian, Devanagari, Bengali, Thai, full width

/** A digit of another script as 0 to 9; anything else as it is. */
function ascii(key) {
  const zero = [...ZEROS].find((z) => key >= z && key.codePointAt(0) < z.codePointAt(0) + 10);
  return zero ? String(key.codePointAt(0) - zero.codePointAt(0)) : key;
}

/** What a key may mean: its character first; where that is no shortcut, the key's place on a US keyboard, so that Cyrillic,
 *  Arabic and Greek letters and the digits of a French keyboard work. */
function namesOf(event) {
  const held = `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}`;
  const key = event.key.length === 1 ? ascii(event.key.toLowerCase()) : event.key;
  const [, place] = /^(?:Key|Digit|Numpad)([A-Z0-9])$/.exec(event.code ?? "") ?? [];
  const single = event.key.length === 1 && !event.shiftKey;
  return place && single && place.toLowerCase() !== key ? [held + key, held + place.toLowerCase()] : [held + key];
}

/** Buttons with data-close close the dialog that they are in; so does a press outside of it. */
export function wireDialogs() {
  for (const dialog of all("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
    });
  }
}

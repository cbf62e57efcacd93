// Words for the labeler that need no answer: short ones pass, failures stay until they are read.

import { el, find, icon } from "./dom.js";

const SHOWN_MS = 6000;

/** A message at the edge of the page. `kind`: "stored", "notice" or "failure"; `action` and `actions`: {label, run, stays};
 *  `dismissed` is called where the reader closes it. */
export function tell(kind, words, { hint = "", action = null, actions = action ? [action] : [], dismissed = null } = {}) {
  const list = find("#messages");
  const close = () => message.remove();
  const message = el(
    "div",
    { class: `message ${kind}`, role: kind === "failure" ? "alert" : null },
    kind === "stored" && icon("check"),
    el("p", {}, words, hint && el("span", { class: "hint" }, ` ${hint}`)),
    actions.map(({ label, run, stays }) =>
      el(
        "button",
        {
          type: "button",
          class: "quiet",
          onclick: () => {
            if (!stays) close();
            run();
          },
        },
        label,
      ),
    ),
    el(
      "button",
      {
        type: "button",
        class: "quiet icon-only",
        "aria-label": "Close this message",
        onclick: () => {
          close();
          dismissed?.();
        },
      },
      icon("remove"),
    ),
  );
  for (const old of list.querySelectorAll(`.message.${kind}:not(.failure)`)) old.remove();
  list.append(message);
  if (kind !== "failure") setTimeout(close, SHOWN_MS);
  return close;
}

/** Whether two JSON values say the same, whatever the order of their keys. */
export function same(a, b) {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((k) => same(a[k], b[k]));
}

/** The fields of what was sent that came back otherwise: what is stored must be what the labeler did (F1). */
export function altered(sent, stored) {
  return Object.keys(sent).filter((key) => !same(sent[key], stored?.[key]));
}

// What is on the labeling page when no task is.

import { at } from "./api.js";
import { el } from "./dom.js";
import { words as plain } from "./forms/parts.js";
import { t } from "./language.js";

const SAYINGS = {
  empty: ["Nothing to do right now", "Others hold the items that are left. This page looks again by itself."],
  answered: [
    "You have answered all",
    "Nothing more is here for you. Others still have to answer some of it. Thank you.",
  ],
  finished: ["All done", "You have answered everything that is here for you. Thank you."],
  nothing: ["Nothing here yet", "The lead has not put anything in so far. Come back later."],
  limit: ["Enough for today", "You have reached your limit. Rest; come back tomorrow."],
  waiting: ["Your test is being read", "A researcher grades your answers. You can go on once that is done."],
  not_qualified: [
    "Not for this project",
    "Your test answers did not reach this project's threshold. The other projects are open to you.",
  ],
  paused: ["Paused", "The lead has paused this project. Your answers are stored."],
  offline: ["No connection", "Nothing was fetched ahead. Your answers wait in this browser and go out by themselves."],
};

/** Why there is nothing to do. `status` is that of the API's next. */
export function nothing(status) {
  const [title, words] = SAYINGS[status] ?? SAYINGS.empty;
  const home = el("a", { class: "button", href: at("/") }, t("All projects"));
  return el("div", { class: "rest" }, el("h1", { tabindex: -1 }, t(title)), el("p", {}, t(words)), home);
}

/** What an item is marked for, and what may be done: [label, run] pairs, the first the main one. */
export function warning(task, ways) {
  const marked = task.warnings.map((w) => t(plain(w))).join(", ");
  const buttons = ways.map(([label, run], i) =>
    el("button", { type: "button", class: i ? null : "go", onclick: () => void run() }, label),
  );
  return el(
    "div",
    { class: "rest warning" },
    el("h1", { tabindex: -1 }, t("Before you look")),
    el("p", {}, t("This item is marked: {marks}. Passing it over costs you nothing.", { marks: marked })),
    el("div", { class: "row" }, buttons),
  );
}

// Feedback of the person at the page: asked for consent once, shown, taken back.

import { el, find, uuid } from "./dom.js";
import { tell } from "./messages.js";
import { Refused, feedback, given, takeBack } from "./client.js";

const AGREED = "harken:consent";
const SAID = {
  thumb: (s) => (s.label ? "Good answer" : "Bad answer"),
  rating: (s) => `Rated ${s.score}`,
  edit: (s) => `Improved: ${s.completion}`,
  demonstration: (s) => `Written: ${s.completion}`,
  preference: (s) =>
    s.ranks[0] === s.ranks[1] ? `Equal: ${s.completions[0]}` : `Better: ${s.completions[s.ranks.indexOf(1)]}`,
  use: (s) => ({ copy: "Copied", regenerate: "Asked again", rephrase: "Rephrased", abandon: "Left", accept: "Accepted", shown: "Seen" })[s.signal],
};

export const agreed = (words) => localStorage.getItem(AGREED) === words;

/** Whether the person agrees that feedback is stored; asked once for these words. */
export function consent(words) {
  if (agreed(words)) return Promise.resolve(true);
  const dialog = find("#consent");
  find("#consent-words").textContent = words;
  dialog.showModal();
  return new Promise((resolve) => {
    const close = (yes) => {
      if (yes) localStorage.setItem(AGREED, words);
      if (dialog.open) dialog.close();
      resolve(yes);
    };
    dialog.oncancel = () => close(false);
    for (const button of dialog.querySelectorAll("button")) button.onclick = () => close(button.value === "yes");
  });
}

/** Sends one judgment of an answer {id, choice, token}; returns what is stored, or null where it is not. */
export async function judge(answer, kind, value, more = {}) {
  const seconds = answer.ended ? Math.round((Date.now() - answer.ended) / 100) / 10 : null;
  const body = { id: answer.id, choice: answer.choice, token: answer.token, kind, value, client_id: uuid(), ...more };
  if (seconds !== null) body.seconds = Math.min(seconds, 999_999);
  try {
    return await feedback({ ...body, finished_reading: Boolean(answer.read), consent: true });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    tell("failure", error.message);
    return null;
  }
}

/** A signal of use: only of those who agreed, and never in the way. */
export function signal(answer, value, words, leaving = false) {
  if (!answer?.token || !agreed(words)) return;
  const body = { id: answer.id, choice: answer.choice, token: answer.token, kind: "use", value, consent: true };
  feedback(body, { keepalive: leaving }).catch(() => {});
}

/** The dialog of what was said, each with a way back. */
export async function showGiven() {
  const list = find("#given-list");
  let rows;
  try {
    rows = (await given()).data;
  } catch (error) {
    tell("failure", error.message);
    return;
  }
  const line = (row) => {
    const words = el("p", { class: row.counts ? null : "gone" }, (SAID[row.kind]?.(row.said) ?? row.kind).slice(0, 200));
    const back = el("button", { type: "button", class: "quiet", "aria-label": `Take back: ${words.textContent.slice(0, 60)}` }, "Take back");
    back.onclick = async () => {
      try {
        await takeBack(row.id);
        words.className = "gone";
        back.remove();
        find("#given").dispatchEvent(new CustomEvent("taken", { detail: row }));
      } catch (error) {
        tell("failure", error.message);
      }
    };
    return el("li", {}, words, row.counts ? back : el("span", { class: "hint" }, "taken back"), el("time", { class: "hint" }, new Date(row.created_at).toLocaleString()));
  };
  list.replaceChildren(...(rows.length ? rows.map(line) : [el("li", {}, el("p", {}, "Nothing yet."))]));
  find("#given").showModal();
}

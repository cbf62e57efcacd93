// Every page but the labeling one: forms go to the API as JSON, and say what went wrong.
//   <form data-api="POST /api/projects" data-then="/lead/projects/{id}">   goes there, {id} filled from the answer
//   <form … data-done="Saved.">                                             stays and says so; data-show="url": shows a secret
// A field's name may have dots ("group.age"); data-type: int, float, bool, truth (the word), list or ids (ticked boxes), optional (left out
// when empty), preset (a ticked box means the JSON in data-value),
// ranks (one number of several; null when none is given).

import { at, call } from "./api.js";
import { all, find } from "./dom.js";
import { tell } from "./messages.js";
import { forgetPage } from "./offline.js";
import { Outbox } from "./outbox.js";

const READ = {
  int: (input) => (input.value === "" ? null : parseInt(input.value, 10)),
  float: (input) => (input.value === "" ? null : Number(input.value)),
  bool: (input) => input.checked,
  truth: (input) => input.value === "true",
  optional: (input) => input.value || undefined,
  preset: (input) => (input.checked ? JSON.parse(input.dataset.value) : null),
};

/** A form's fields as the JSON that the API wants. */
export function fields(form) {
  const body = {};
  for (const input of form.elements) {
    if (!input.name || input.disabled || (input.type === "radio" && !input.checked)) continue;
    const path = input.name.split(".");
    const name = path.pop();
    const place = path.reduce((at, key) => (at[key] ??= {}), body);
    if (input.dataset.type === "ranks") body[name] = [...(body[name] ?? []), READ.int(input)];
    else if (["list", "ids"].includes(input.dataset.type)) {
      const one = input.dataset.type === "ids" ? Number(input.value) : input.value;
      (place[name] ??= []).push(...(input.checked ? [one] : []));
    } else {
      const value = (READ[input.dataset.type] ?? ((i) => i.value))(input);
      if (value !== undefined) place[name] = value;
    }
  }
  if (body.ranks?.every((r) => r === null)) body.ranks = null;
  if (body.overlap && (body.overlap.max ?? 0) <= body.overlap.min) body.overlap = body.overlap.min;
  return body;
}

/** A same-origin path out of "/lead/projects/{id}" and the API's answer. */
export const fillPath = (path, answer) => path.replace(/\{(\w+)\}/g, (_, key) => encodeURIComponent(answer[key]));

/** A secret that the server tells once: an invitation's link, a token. */
function showOnce(form, secret) {
  const shown = form.nextElementSibling?.matches(".shown") ? form.nextElementSibling : find(".shown");
  shown.hidden = false;
  find("input", shown).value = secret.startsWith("/") ? new URL(secret, location.href).href : secret;
  find("input", shown).select();
}

/** What a withdrawal reached: how many answers, and the frozen files that hold some of them. */
function withdrawn(form, { judgments, snapshots }) {
  const name = form.dataset.withdrawn;
  const files = snapshots.map((s) => `${s.name.split("/").at(-1)} (${s.sha256.slice(0, 12)})`).join(", ");
  const held = files ? ` Earlier snapshots hold some: ${files}.` : " No snapshot holds any.";
  tell("notice", `${judgments.toLocaleString("en")} answers of ${name} leave all later snapshots.${held}`, {
    hint: files ? `harken users withdraw ${JSON.stringify(name)} --runs runs lists the runs that used them.` : undefined,
  });
  form.closest("tr").cells[2].textContent = "withdrawn";
  form.closest("td").replaceChildren();
}

async function send(form) {
  const error = find(".error", form);
  const [method, path] = form.dataset.api.split(" ");
  const button = find("button[type=submit]", form);
  button.disabled = true;
  if (error) error.textContent = "";
  try {
    const body = form.dataset.none !== undefined ? undefined : fields(form);
    const answer = await call(method, path, body);
    if (form.dataset.then) location.assign(at(fillPath(form.dataset.then, answer)));
    else if (form.dataset.done) tell("stored", form.dataset.done);
    else if (form.dataset.withdrawn !== undefined) withdrawn(form, answer);
    else location.reload();
    if (form.dataset.show) showOnce(form, answer[form.dataset.show]);
  } catch (failure) {
    if (error) error.textContent = [failure.message, failure.hint].filter(Boolean).join(" ");
    else tell("failure", failure.message, { hint: failure.hint });
  } finally {
    button.disabled = false;
  }
}

// Answers that did not reach the server from the labeling page go out from any page.
const owner = find('meta[name="user"]')?.content;
if (owner) new Outbox(owner, {}).flush();
else forgetPage();

for (const form of all("form[data-api]")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (form.dataset.sure && !form.dataset.asked) {
      // a second press, not a dialog: nothing is lost by one wrong click (F9)
      form.dataset.asked = "yes";
      find("button[type=submit]", form).textContent = form.dataset.sure;
      setTimeout(() => delete form.dataset.asked, 8000);
      return;
    }
    send(form);
  });
}

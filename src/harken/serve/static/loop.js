// The loop's page: where it stands, and what a person decides. Data comes with the reader's key alone.

import { el, find } from "./dom.js";

const said = find("#said");
let out = null; // the turn that a rollback would take out of service, as the reader sees it
let key = sessionStorage.getItem("harken-key") || "";

async function ask(path, body) {
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...(body && { "Content-Type": "application/json" }) };
  const reply = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  const found = await reply.json();
  if (!reply.ok) throw new Error(found.error ? found.error.message : `status ${reply.status}`);
  return found;
}

const figure = (d) => (d ? `${signed(d.value)} [${signed(d.low)}, ${signed(d.high)}]` : "none");
const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(3)}`;

function rules(turn) {
  const rows = turn.rules.flatMap((rule) => rule.findings.map((f) => el("tr", {},
    el("td", {}, rule.rule), el("td", {}, f.name), el("td", {}, f.holds ? "holds" : f.why), el("td", {}, figure(f.difference)),
    el("td", {}, String(f.items)), el("td", {}, f.more ? String(Math.ceil(f.more)) : ""))));
  const head = ["Rule", "Of", "Found", "New − served, 95 %", "Prompts", "More needed"].map((t) => el("th", { scope: "col" }, t));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Gate of turn ${turn.turn}` },
    el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows)));
}

function audit(turn) {
  const aside = turn.audit.set_aside.map((s) => el("li", {}, `${s.people.join(", ")}: ${s.why}`));
  return [el("p", {}, `${turn.snapshot.comparisons} comparisons by ${turn.snapshot.labelers} people; ${turn.audit.train} train, `
    + `${turn.audit.held_out} held out, ${turn.audit.left_out} left out.`),
  ...(aside.length ? [el("p", {}, "To look at:"), el("ul", {}, ...aside)] : [])];
}

function decision(turn) {
  const comment = el("textarea", { id: "comment", rows: "2" });
  const choose = (decision) => act({ decision, turn: turn.turn, comment: comment.value });
  return el("div", { class: "field" }, el("label", { for: "comment" }, "Comment, kept with the decision"), comment,
    el("div", { class: "row" }, el("button", { type: "button", class: "go", onclick: () => choose("approve") }, `Approve turn ${turn.turn}`),
      el("button", { type: "button", onclick: () => choose("reject") }, "Reject")));
}

function shown(turn) {
  const parts = [el("h2", {}, `Turn ${turn.turn}: ${turn.state}`)];
  if (turn.words) parts.push(el("p", {}, turn.words));
  if (turn.audit) parts.push(...audit(turn));
  for (const note of (turn.gate && turn.gate.notes) || []) parts.push(el("p", {}, note));
  if (turn.rules) parts.push(rules(turn));
  if (turn.canary) parts.push(el("p", {}, `Canary: ${turn.canary.state} after ${turn.canary.n} outcomes, mean ${signed(turn.canary.mean)}.`));
  if (turn.state === "waits for approval") parts.push(decision(turn));
  return el("article", {}, ...parts);
}

async function load() {
  try {
    const found = await ask("/loop/state");
    find("#found").hidden = false;
    find("#serving").textContent = `${found.serving} answers.` + (found.previous ? ` Before it: ${found.previous}.` : "")
      + (found.canary ? ` ${found.canary}.` : "") + ` You are ${found.you}.`;
    out = found.rolls_back;
    const back = find("#rollback");
    back.disabled = out === null;
    back.textContent = out === null ? "Roll back" : found.canary ? "End the canary" : `Roll back to ${found.previous}`;
    find("#turns").replaceChildren(...found.turns.reverse().map(shown));
  } catch (error) {
    find("#found").hidden = true;
    said.textContent = error.message;
  }
}

async function act(body) {
  try {
    said.textContent = (await ask("/loop/decide", body)).done;
  } catch (error) {
    said.textContent = error.message;
  }
  await load();
}

find("#rollback").addEventListener("click", () => act({ decision: "rollback", turn: out }));
find("#key").addEventListener("submit", (event) => {
  event.preventDefault();
  key = find("#key-text").value.trim();
  sessionStorage.setItem("harken-key", key);
  said.textContent = "";
  load();
});
if (find("#key").hidden || key) load();

// The chat page: a conversation that branches, streamed answers, and what the person says of them.

import { announce, el, find } from "./dom.js";
import { pageData } from "./api.js";
import { render } from "./text.js";
import { tell } from "./messages.js";
import { Refused, key, models, stream } from "./client.js";
import { consent, judge, showGiven, signal } from "./judge.js";
import { Tree } from "./tree.js";

const data = pageData();
const talk = find("#talk");
const question = find("#question");
let tree = Tree.load();
let running = null; // the AbortController of the answer being written

const STROKES = {
  up: "M7 11v9H3v-9zM7 11l4-8a2.5 2.5 0 0 1 2.5 2.5V9H19a2 2 0 0 1 2 2.3l-1.2 7A2 2 0 0 1 17.8 20H7",
  down: "M17 13V4h4v9zM17 13l-4 8a2.5 2.5 0 0 1-2.5-2.5V15H5a2 2 0 0 1-2-2.3l1.2-7A2 2 0 0 1 6.2 4H17",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  again: "M20 11a8 8 0 1 0-2.3 6M20 4v7h-7",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  before: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
};

function drawn(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [k, v] of [["class", "icon"], ["viewBox", "0 0 24 24"], ["aria-hidden", "true"]]) svg.setAttribute(k, v);
  path.setAttribute("d", STROKES[name]);
  svg.append(path);
  return svg;
}

const tool = (name, label, run, more = {}) =>
  el("button", { type: "button", class: "quiet icon-only", "aria-label": label, title: label, onclick: run, ...more }, drawn(name));

// --- what is shown ---------------------------------------------------------------------------------

function show({ end = false } = {}) {
  const path = tree.path();
  if (!path.length) talk.replaceChildren(el("p", { class: "empty" }, "What would you like to know?"));
  else talk.replaceChildren(...path.map(shown));
  tree.save();
  if (end) scrollToEnd();
}

function scrollToEnd() {
  const main = find("#main");
  main.scrollTop = main.scrollHeight;
}

function shown(node) {
  if (node.role === "user") return userTurn(node);
  if (node.pair && !node.decided) return pairTurn(node);
  return answerTurn(node);
}

function branches(node) {
  const [at, n] = tree.place(node);
  if (n < 2) return null;
  const go = (by) => () => {
    tree.turn(node, by);
    show();
  };
  return [
    tool("before", "Previous version", go(-1), { disabled: at === 0 || Boolean(running) }),
    el("span", { class: "number" }, `${at + 1}/${n}`),
    tool("next", "Next version", go(1), { disabled: at === n - 1 || Boolean(running) }),
  ];
}

function userTurn(node) {
  const edit = tool("edit", "Edit my message", () => writeOver(turn, node.content, "Send", (text) => ask(node.parent, text, node)), {
    disabled: Boolean(running),
  });
  const turn = el("div", { class: "turn user" }, el("div", { class: "said" }, node.content), el("div", { class: "tools" }, branches(node), edit));
  return turn;
}

function answerTurn(node) {
  const text = el("div", { class: "prose" }, render(node.content));
  const turn = el("div", { class: `turn assistant${node.writing ? " writing" : ""}`, "aria-busy": Boolean(node.writing) }, text);
  node.view = (words) => text.replaceChildren(render(words));
  if (node.writing) return turn;
  const judged = node.answer?.token;
  const thumb = (name, label, value) =>
    tool(name, label, () => giveThumb(node, value), { "aria-pressed": node.thumb === value });
  turn.append(
    el(
      "div",
      { class: "tools" },
      branches(node),
      judged && [thumb("up", "Good answer", true), thumb("down", "Bad answer", false)],
      tool("copy", "Copy", () => copy(node)),
      tool("again", "Answer again", () => again(node), { disabled: Boolean(running) }),
      judged && tool("edit", "Improve this answer", () => writeOver(turn, node.content, "Save", (words) => improve(node, words))),
      node.improved && el("span", {}, "improved by you"),
      node.end === "length" && el("span", {}, "cut at the limit"),
      node.end === "stopped" && el("span", {}, "stopped"),
    ),
  );
  if (node.answer && !node.answer.read) watchEnd(turn, node);
  return turn;
}

/** Whether the end of an answer was ever in sight. */
function watchEnd(turn, node) {
  new IntersectionObserver((seen, observer) => {
    if (!seen.some((s) => s.isIntersecting)) return;
    node.answer.read = true;
    tree.save();
    observer.disconnect();
  }).observe(turn.lastElementChild);
}

function pairTurn(node) {
  const sides = node.order.map((choice, place) => {
    const text = el("div", { class: "prose" }, render(node.pair[choice]));
    return el("section", { class: `card${node.writing ? " writing" : ""}`, "aria-label": `Answer ${place + 1}` }, el("h2", {}, `Answer ${place + 1}`), text);
  });
  node.view = () => node.order.forEach((choice, place) => sides[place].lastElementChild.replaceChildren(render(node.pair[choice])));
  const turn = el("div", { class: "turn assistant", "aria-busy": Boolean(node.writing) }, el("div", { class: "pair" }, sides));
  if (node.writing) return turn;
  const verdict = (label, place, digit) =>
    el("button", { type: "button", onclick: () => decide(node, place) }, label, " ", el("kbd", {}, digit));
  turn.append(
    el(
      "div",
      { class: "verdict", role: "group", "aria-label": "Which answer is better?" },
      verdict("1 is better", 0, "1"),
      verdict("Equal", null, "0"),
      verdict("2 is better", 1, "2"),
    ),
  );
  return turn;
}

/** A form in a turn's place. */
function writeOver(turn, text, label, done) {
  const area = el("textarea", { "aria-label": "Your version", rows: 3, value: text });
  const form = el("form", {}, area, el("div", { class: "row" }, el("button", { class: "go" }, label), el("button", { type: "button", onclick: () => show() }, "Cancel")));
  form.onsubmit = (event) => {
    event.preventDefault();
    if (area.value.trim()) done(area.value);
  };
  area.onkeydown = (event) => {
    if (event.key === "Escape") show();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  };
  turn.replaceChildren(form);
  area.focus();
}

// --- asking ----------------------------------------------------------------------------------------

async function ask(parent, text, before = null) {
  if (running) return;
  const answered = before && tree.nodes[before.children[before.at]];
  if (answered) signal(answered.answer, "rephrase", data.consent);
  const node = tree.add(parent, "user", text);
  await answer(node);
}

async function answer(node) {
  const two = data.feedback && find("#compare").checked;
  const order = Math.random() < 0.5 ? [0, 1] : [1, 0];
  const more = two ? { pair: ["", ""], order, decided: false } : {};
  const reply = tree.add(node.id, "assistant", "", { writing: true, ...more });
  running = new AbortController();
  busy(true);
  show({ end: true });
  const body = { model: find("#model").value, messages: tree.messages(node, find("#system").value.trim()), n: two ? 2 : 1 };
  const draw = drawer(reply);
  try {
    const result = await stream(body, (choice, words) => {
      if (two) reply.pair[choice] += words;
      else reply.content += words;
      draw();
    }, running.signal);
    finish(reply, result, two);
  } catch (error) {
    fail(reply, node, error);
  }
  running = null;
  reply.writing = false;
  busy(false);
  show();
  if (two && reply.pair) find(".verdict button", talk.lastElementChild)?.focus();
}

/** Draws at most once a frame, and follows the end while the reader is there. */
function drawer(reply) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      const main = find("#main");
      const follow = main.scrollHeight - main.scrollTop - main.clientHeight < 80;
      reply.view?.(reply.content);
      if (follow) scrollToEnd();
    });
  };
}

function finish(reply, result, two) {
  const right = (choice) => ({ id: result.id, choice, token: result.tokens[choice], ended: Date.now(), read: false });
  [reply.end] = result.ends;
  if (two) reply.answers = [right(0), right(1)];
  else reply.answer = right(0);
  for (const one of reply.answers ?? [reply.answer]) signal(one, "shown", data.consent);
  announce("The answer is complete.");
}

function fail(reply, node, error) {
  if (reply.pair) {
    reply.content = reply.pair[reply.order[0]];
    reply.pair = null;
  }
  reply.end = "stopped";
  if (error.name === "AbortError") return announce("Stopped.");
  if (!reply.content) {
    const above = tree.nodes[node.id];
    above.children.pop();
    above.at = Math.max(0, above.children.length - 1);
  }
  if (!(error instanceof Refused)) throw error;
  if (error.status === 401) askKey();
  const wait = error.wait ? `Try again in ${error.wait} s.` : "";
  tell("failure", error.message, { hint: wait, action: { label: "Try again", run: () => !running && answer(node) } });
}

function busy(yes) {
  find("#send").hidden = yes;
  find("#stop").hidden = !yes;
}

const stop = () => running?.abort();

// --- judging ---------------------------------------------------------------------------------------

async function giveThumb(node, value) {
  if (!(await consent(data.consent))) return;
  const taken = node.thumb === value;
  const stored = await judge(node.answer, "thumb", taken ? null : value);
  if (!stored) return;
  node.thumb = taken ? undefined : value;
  node.thumbId = stored.id;
  show();
  announce(taken ? "Taken back." : "Stored.");
}

async function improve(node, words) {
  if (words === node.content) return show();
  if (!(await consent(data.consent))) return show();
  const stored = await judge(node.answer, "edit", words);
  if (!stored) return show();
  tree.add(node.parent, "assistant", words, { improved: true });
  show();
  announce("Stored.");
}

async function copy(node) {
  try {
    await navigator.clipboard.writeText(node.content);
    announce("Copied.");
  } catch {
    tell("failure", "The browser did not allow copying.");
    return;
  }
  signal(node.answer, "copy", data.consent);
}

async function again(node) {
  if (running) return;
  signal(node.answer, "regenerate", data.consent);
  await answer(tree.nodes[node.parent]);
}

/** `place` is 0 or 1 as shown, null for equal. */
async function decide(node, place) {
  const chosen = node.order[place ?? 0];
  if (await consent(data.consent)) {
    const value = place === null ? "tie" : chosen === 0 ? "this" : "other";
    const [first, second] = node.answers;
    const over = { id: second.id, choice: second.choice, token: second.token };
    if (!(await judge(first, "preference", value, { over, order: node.order }))) return;
    announce("Stored.");
  }
  node.decided = true;
  node.content = node.pair[chosen];
  node.answer = node.answers[chosen];
  show({ end: true });
  question.focus();
}

// --- the page --------------------------------------------------------------------------------------

function askKey() {
  const dialog = find("#key");
  dialog.querySelector("form").onsubmit = () => {
    key.set(find("#key-text").value.trim());
    find("#key-text").value = "";
  };
  if (!dialog.open) dialog.showModal();
}

find("#ask").onsubmit = (event) => {
  event.preventDefault();
  const text = question.value.trim();
  const last = tree.last();
  if (!text || running) return;
  if (last.pair && !last.decided) {
    tell("notice", "Say first which answer is better.");
    return;
  }
  question.value = "";
  ask(last.id, text);
};
question.onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    find("#ask").requestSubmit();
  }
};
find("#stop").onclick = stop;
/** Whoever goes while the end of the last answer was never in sight has left it. */
function leave(leaving) {
  const { answer } = tree.last();
  if (!answer || answer.read || answer.left) return;
  answer.left = true;
  signal(answer, "abandon", data.consent, leaving);
}
addEventListener("pagehide", () => leave(true));
find("#new").onclick = () => {
  stop();
  leave(false);
  tree = new Tree();
  show();
  question.focus();
};
find("#mine").onclick = showGiven;
find("#given [data-close]").onclick = () => find("#given").close();
find("#given").addEventListener("taken", ({ detail }) => {
  for (const node of tree.nodes) if (node.thumbId === detail.id) node.thumb = undefined;
  show();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) stop();
  const last = tree.last();
  const writing = event.target.matches("textarea, input, select") || document.querySelector("dialog[open]");
  if (writing || event.ctrlKey || event.metaKey || event.altKey || !last.pair || last.decided || last.writing) return;
  const place = { 1: 0, 2: 1, 0: null }[event.key];
  if (place !== undefined) decide(last, place);
});

find("#model").append(...data.models.map((name) => el("option", { value: name }, name)));
find("#models").hidden = data.models.length < 2;
find("#mine").hidden = find("#two").hidden = !data.feedback;
if (data.keys && !key.get()) askKey();
if (!data.keys || key.get()) models().catch((error) => error.status === 401 && askKey());
show({ end: true });
question.focus();

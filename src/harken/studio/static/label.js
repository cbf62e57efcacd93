// The labeling page: shows a task, sends the answer, has the next one ready. Served with the project in #data.

import { at, base, call, leave, pageData, storable } from "./api.js";
import { Clock } from "./clock.js";
import { ask } from "./dialogs.js";
import { announce, clockText, el, find, uuid } from "./dom.js";
import { Drafts } from "./drafts.js";
import { FORMS } from "./forms/index.js";
import { words as plain } from "./forms/parts.js";
import { Keys, wireDialogs } from "./keys.js";
import { language, t } from "./language.js";
import { altered, tell } from "./messages.js";
import { keepPage, Tasks } from "./offline.js";
import { Outbox } from "./outbox.js";
import { Queue } from "./queue.js";
import { nothing, warning } from "./screens.js";
import { render } from "./text.js";

const GUIDE_READ = `harken:guide:${pageData().project.id}`;
const RENEW_MS = 4 * 60 * 1000;

const { project, user } = pageData();
const forms = new Map([[project.form.version, project.form]]);
const stage = find("#stage");
const clock = new Clock();
const keys = new Keys();
const queue = new Queue(project.id);
const tasks = new Tasks(user.id, project.id);
const drafts = new Drafts(user.id, (words) => tell("notice", words));
const state = { form: null, last: null, done: project.my.done, dropKeys: () => {}, again: null, switching: null };

const outbox = new Outbox(user.id, {
  prepare: (entry, last) => {
    const next = last && !queue.asking && entry.project === project.id ? queue.wanted() : null;
    return next ? { ...entry.body, next } : entry.body;
  },
  stored: (entry, answer) => {
    if (entry.project !== project.id) return;
    take(answer.next, [entry.task.assignment]);
    if (entry.action === "submit") confirm(entry, answer);
    void completed();
    if (!queue.current) present();
  },
  refused: (entry, error) => {
    refused(entry, error, t("Not stored"));
    state.done -= 1;
    progress();
  },
  changed: connection,
});

/** An answer that the server will never take in this form: it is here until the labeler has read, copied or dropped it. An
 *  item that is answered already is not opened again. */
function refused(entry, error, words) {
  const closed = ["already_answered", "client_id_reused", "not_found"].includes(error.code);
  const drop = () => outbox.dismiss(entry.id);
  tell("failure", `${words}: ${error.message}`, {
    hint: closed && error.code !== "not_found" ? t("Your other answer to it counts. Copy this one if you need it, or discard it.") : error.hint,
    actions: [
      ...(closed ? [] : [{ label: t("Go back to it"), run: () => reopen(entry) }]),
      { label: t("Copy"), stays: true, run: () => copy(inWords(entry)) },
      { label: t("Discard"), run: drop },
    ],
    dismissed: drop,
  });
}

/** What was answered, as text to be copied. */
function inWords({ body, task }) {
  const { text, notes } = body.answer ?? {};
  return text ?? [body.answer ? FORMS[task.kind].summary(body.answer) : body.reason ?? body.category, notes].filter(Boolean).join("\n");
}

async function copy(text) {
  const area = el("textarea", { class: "heard", value: text, "aria-hidden": "true" }); // also where there is no HTTPS
  document.body.append(area);
  area.select();
  const done = await (navigator.clipboard?.writeText(text) ?? Promise.reject(new Error())).then(
    () => true,
    () => document.execCommand("copy"),
  );
  area.remove();
  announce(done ? t("Copied") : t("This browser did not copy it."));
}

/** The echo of what was stored must be what was on screen (F1). */
function confirm(entry, answer) {
  const wrong = altered(entry.body.answer, answer.answer);
  if (wrong.length) {
    const list = wrong.map(plain).join(", ");
    tell("failure", t("The server stored something else than you sent ({list}).", { list }), {
      hint: t("Undo it and tell the lead."),
      action: { label: t("Undo"), run: undo },
    });
    return;
  }
  const words = FORMS[entry.task.kind].summary(answer.answer);
  if (answer.suggestion) {
    const other = FORMS[entry.task.kind].summary(answer.suggestion.answer);
    tell("notice", t("Stored: {words}. A model had suggested: {other}.", { words, other }), {
      hint: t("You were not shown it first, to see what people think by themselves."),
      action: { label: t("Change it"), run: undo },
    });
    return;
  }
  if (!answer.notices.length) return void tell("stored", t("Stored: {words}", { words }));
  tell("notice", `${t("Stored: {words}", { words })}. ${answer.notices.map((n) => t(n.message)).join(" ")}`, {
    action: { label: t("Change it"), run: undo },
  });
}

/** Takes tasks in, and whatever they need before they are shown. */
function take(answer, except) {
  queue.take(answer, except);
  tasks.keep(queue.tasks);
  for (const task of queue.ready) need(task).catch(() => {});
}

/** A task may ask by another form than the project's (a qualifying test, or a form changed meanwhile), or under newer
 *  instructions: they are fetched, and new instructions shown. */
async function need(task) {
  if (!forms.has(task.form_version))
    forms.set(task.form_version, await call("GET", `/api/projects/${project.id}/forms/${task.form_version}`));
  if (task.instruction_hash !== project.instructions.hash)
    Object.assign(project, await call("GET", `/api/projects/${project.id}`));
}

/** Shows the task in hand, or why there is none. */
function present() {
  state.dropKeys();
  clearTimeout(state.again);
  const task = queue.current ?? queue.advance();
  if (task) tasks.keep(queue.tasks);
  document.body.classList.toggle("idle", !task);
  if (!task) return rest();
  if (!forms.has(task.form_version))
    return void need(task).then(present, (error) =>
      tell("failure", error.message, { hint: error.hint, action: { label: t("Try again"), run: present } }),
    );
  if (localStorage.getItem(GUIDE_READ) !== project.instructions.hash) guide();
  if (task.warnings.length && !task.seen) return warn(task);
  const form = new FORMS[task.kind](task, forms.get(task.form_version), () => changed(task));
  Object.assign(form, { onstep: bar, onsubmit: submit, onproblem: complain });
  state.form = form;
  stage.replaceChildren(
    task.stage === "qualify" ? el("p", { class: "notice" }, t("This item belongs to the qualifying test.")) : "",
    task.suggestion ? suggested(form) : "",
    form.root,
  );
  const draft = drafts.of(task);
  if (draft) form.restore(draft);
  else if (task.suggestion) form.restore({ answer: task.suggestion.answer });
  state.begun = draft ? task.assignment : null;
  clock.start(draft?.seconds ?? 0);
  bar();
  scrollTo(0, 0);
  form.focus();
  announce(task.completions.length ? t("{n} answers to judge", { n: task.completions.length }) : t("A prompt to judge"));
  if (state.switching !== null)
    requestAnimationFrame(() =>
      setTimeout(() => {
        document.documentElement.dataset.switchMs = (performance.now() - state.switching).toFixed(1); // read by the browser tests
        state.switching = null;
      }),
    );
  return undefined;
}

/** Says that the answer on screen is a model's, and takes it away where the labeler wants to begin with nothing. */
function suggested(form) {
  const empty = el(
    "button",
    {
      type: "button",
      class: "quiet",
      onclick: () => {
        const blank = new FORMS[queue.current.kind](queue.current, forms.get(queue.current.form_version), () => {});
        form.restore(blank.draft());
        changed(queue.current);
        form.focus();
      },
    },
    t("Begin with nothing"),
  );
  return el("div", { class: "notice suggested", role: "note" }, el("p", {}, t("A model suggests this answer. Accept it by submitting, or correct it.")), empty);
}

function rest() {
  state.form = null;
  stage.replaceChildren(nothing(queue.status === "finished" && pageData().empty ? "nothing" : queue.status));
  find("h1", stage).focus({ preventScroll: true });
  state.dropKeys = () => {};
  if (["empty", "offline", "ok", "waiting", "paused"].includes(queue.status))
    state.again = setTimeout(load, 1000 * (queue.retryAfter ?? (queue.status === "ok" ? 1 : 15)));
}

/** Nothing disturbing is shown before somebody chose to look. */
function warn(task) {
  state.form = null;
  document.body.classList.add("idle");
  const look = () => {
    task.seen = true;
    present();
  };
  stage.replaceChildren(
    warning(task, [
      [t("Show it"), look],
      [t("Skip"), skip],
      [t("Stop showing me these"), unsafe],
    ]),
  );
  find("h1", stage).focus({ preventScroll: true });
  state.dropKeys = keys.add(t("This warning"), [{ keys: ["Enter"], shown: "Enter", words: t("show the item"), run: look }]);
}

/** The bar below and the keys follow the form's step. */
function bar() {
  state.dropKeys();
  const { form } = state;
  if (!form) return;
  state.dropKeys = keys.add(t("This task"), form.keys());
  keys.relabel();
  find("#status").textContent = form.status;
  find("#go .label").textContent = form.action;
  find("#go kbd").textContent = form.enter ?? "⏎";
  find("#problem").textContent = "";
}

function changed(task) {
  if (!state.form) return;
  state.begun = task.assignment;
  find("#status").textContent = state.form.status;
  find("#problem").textContent = "";
  drafts.changed(task, () => ({ ...state.form.draft(), seconds: clock.seconds }));
}

function complain(words) {
  find("#problem").textContent = words;
  announce(words);
}

function submit() {
  const { form } = state;
  if (!form || form.advance?.()) return;
  const problem = form.problem();
  if (problem) return void complain(problem);
  const task = queue.current;
  send(
    "submit",
    task,
    {
      answer: form.answer(),
      seconds: Math.round(clock.seconds * 10) / 10,
      form_version: task.form_version,
      instruction_hash: task.instruction_hash,
    },
    form.draft(),
  );
}

/** Writes an action to the outbox and goes on at once. */
function send(action, task, body, draft = null) {
  state.switching = performance.now();
  const id = uuid();
  const entry = {
    id,
    action,
    project: project.id,
    task: { ...task, draft: null },
    draft: draft && { ...draft, seconds: clock.seconds },
    path: `/api/assignments/${task.assignment}/${action}`,
    body: storable({ client_id: id, ...body }),
  };
  drafts.forget(task);
  queue.current = null;
  queue.advance();
  outbox.add(entry);
  state.last = entry;
  state.done += 1;
  if (queue.open) queue.open -= 1; // until the server says how many
  present();
  progress();
  if (queue.ready.length === 0 && queue.status !== "finished") load();
}

/** What another tab answers leaves this one too, unless an answer to it was begun here: its refusal is then told. */
addEventListener("storage", ({ key, oldValue, newValue }) => {
  if (!key?.startsWith(`${outbox.prefix}out:`) || oldValue || !newValue) return;
  const { assignment } = JSON.parse(newValue).task;
  queue.ready = queue.ready.filter((t) => t.assignment !== assignment);
  if (queue.current?.assignment !== assignment || state.begun === assignment) return;
  drafts.stop();
  queue.current = null;
  queue.advance();
  present();
  progress();
  if (!queue.ready.length) load();
});

async function skip() {
  const task = queue.current;
  const said = task && (await ask("skip"));
  if (said && queue.current === task) send("skip", task, said, state.form?.draft());
}

async function unsafe() {
  const task = queue.current;
  const said = task && (await ask("unsafe"));
  if (said && queue.current === task) send("unsafe", task, said, state.form?.draft());
}

/** Takes back the last action: locally while it was not sent, else on the server. */
async function undo() {
  const { last } = state;
  state.last = null;
  if (last && outbox.cancel(last.id)) return void reopen(last);
  try {
    await outbox.flush();
    if (outbox.waiting.length) throw outbox.error;
    const answer = await call("POST", `/api/projects/${project.id}/undo`, { client_id: uuid() });
    show(answer.task, last?.draft && last.task.assignment === answer.task.assignment ? last.draft : null);
  } catch (error) {
    if (error.code === "nothing_to_undo") tell("notice", t("There is nothing to undo."));
    else
      tell("failure", t("Not undone: {reason}", { reason: error.message }), {
        hint: error.status ? error.hint : t("Undo needs the connection for an answer that was already sent."),
      });
  }
}

function reopen(entry) {
  outbox.dismiss(entry.id);
  show(entry.task, entry.draft);
}

/** Brings a task back on screen with the answer it had; what was there keeps its draft and comes next. */
function show(task, draft) {
  if (queue.current && state.form) drafts.keep(queue.current, { ...state.form.draft(), seconds: clock.seconds });
  drafts.stop();
  queue.back({ ...task, seen: true });
  if (draft) drafts.keep(task, draft);
  state.done = Math.max(0, state.done - 1);
  present();
  progress();
  announce(t("Undone. Your answer is back."));
}

/** The server takes back what `have` does not name, so this never runs beside a submit that asks for more. */
async function refill() {
  while (outbox.running) await outbox.flush();
  const sent = outbox.waiting.map((e) => e.task.assignment);
  await queue.fill(sent, take).catch((error) => {
      if (error.code === "offline" && !queue.tasks.length) {
        queue.ready = tasks.get(sent);
        queue.status = queue.ready.length ? queue.status : "offline";
      }
      if (error.status === 401)
        tell("failure", t("You are logged out."), {
          hint: t("Your answers wait here."),
          action: { label: t("Log in"), run: () => open(at(`/login?next=${encodeURIComponent(location.pathname.slice(base.length))}`)) },
        });
    });
}

async function load() {
  await outbox.flush();
  await refill();
  if (!queue.current) present();
  progress();
}

/** Who came by a crowd platform's link gets the completion code once they have answered enough. */
let asked = null;
async function completed() {
  const { crowd } = pageData();
  if (!crowd || state.done < crowd.wanted || asked) return;
  asked = true;
  await outbox.flush();
  const found = await call("POST", `/api/projects/${project.id}/completion`, {}).catch(() => null);
  if (!found?.code) {
    asked = null; // not all of it has arrived
    return;
  }
  const link = found.url && el("a", { class: "button go", href: found.url, rel: "noreferrer" }, t("Finish on the platform"));
  find("#completion").replaceChildren(el("p", {}, t("You have answered enough. Thank you! Your completion code:"), " ", el("strong", {}, found.code)), link || "");
  find("#completion").hidden = false;
}

function connection() {
  const waiting = outbox.waiting.length;
  const off = outbox.error?.passing && waiting > 0;
  const node = find("#connection");
  node.textContent = off ? t("{n} waiting to be sent", { n: waiting }) : "";
  node.hidden = !off;
  if (outbox.error?.status === 401 && off)
    node.replaceChildren(el("a", { href: at("/login"), target: "_blank" }, t("Log in: {n} waiting", { n: waiting })));
}

function progress() {
  const total = state.done + (queue.open ?? 0);
  find("#done").replaceChildren(
    t("{n} done", { n: state.done }),
    queue.open === null ? "" : el("span", { class: "still-open" }, ` · ${queue.open ? t("about {n} open", { n: queue.open.toLocaleString(language) }) : t("{n} open", { n: 0 })}`),
  );
  const meter = find("#meter");
  meter.value = total ? state.done / total : 0;
}

function guide() {
  const dialog = find("#guide");
  if (dialog.open) return;
  find(".body", dialog).replaceChildren(render(project.instructions.text, { flow: true }));
  dialog.showModal();
  localStorage.setItem(GUIDE_READ, project.instructions.hash);
}

keys.add(t("Everywhere"), [
  { keys: ["Enter"], shown: "Enter", words: "next, or submit", run: submit },
  { keys: ["Ctrl+Enter"], typing: true, run: submit },
  { keys: ["z", "Ctrl+z"], shown: "Z", words: "undo the last submit or skip", run: () => void undo() },
  { keys: ["s"], shown: "S", words: "skip, with a reason", run: () => void skip() },
  { keys: ["u"], shown: "U", words: "unsafe: report, and stop seeing such items", run: () => void unsafe() },
  { keys: ["q"], shown: "Q", words: "about the prompt: flags, use case", run: () => state.form?.about.toggle() },
  { keys: ["n"], shown: "N", words: "notes", run: () => state.form?.notes?.open() },
  { keys: ["r"], shown: "R", words: "the answers' source text, or rendered", run: () => state.form?.toggleSource() },
  {
    keys: ["Escape"],
    typing: true,
    shown: "Esc",
    words: "leave a text field",
    run: (event) => {
      event.target.blur();
      state.form?.root.focus();
    },
  },
  { keys: ["g"], shown: "G", words: "the guide: this project's instructions", run: guide },
  { keys: ["?"], shown: "?", words: "these keys", run: () => keys.help() },
]);

wireDialogs();
for (const [id, run] of [
  ["go", submit],
  ["undo", undo],
  ["skip-button", skip],
  ["unsafe-button", unsafe],
  ["guide-button", guide],
  ["keys-button", () => keys.help()],
]) {
  find(`#${id}`).addEventListener("click", () => void run());
}
for (const dialog of document.querySelectorAll("dialog"))
  dialog.addEventListener("close", () => (state.form ?? find("h1", stage))?.focus());
keys.turn(keys.on);
setInterval(() => {
  find("#clock").textContent = clockText(queue.current ? clock.seconds : 0);
  find("#clock").classList.toggle("still", !clock.running);
}, 500);
setInterval(() => {
  if (queue.current && clock.running) call("POST", `/api/assignments/${queue.current.assignment}/renew`, {}).catch(() => {});
}, RENEW_MS);
addEventListener("online", () => {
  outbox.flush();
  if (!queue.current) load();
});
/** Whoever leaves gives back what they have not begun, so that others need not wait until the lease runs out. */
addEventListener("pagehide", () => {
  const { current } = queue;
  if (current && state.form) drafts.keep(current, { ...state.form.draft(), seconds: clock.seconds });
  if (!queue.tasks.length || !navigator.onLine) return;
  const keep = outbox.waiting.map((e) => e.task.assignment);
  if (current && state.begun === current.assignment) keep.push(current.assignment);
  leave(`/api/projects/${project.id}/leave`, { keep });
});
addEventListener("pageshow", (event) => event.persisted && void load());
addEventListener("visibilitychange", () => {
  if (!document.hidden && !queue.current && queue.status === "answered") void load();
});
addEventListener("beforeunload", (event) => {
  if (outbox.unsaved) event.preventDefault();
});
for (const entry of outbox.refused.filter((e) => e.project === project.id)) refused(entry, entry.error, t("Not stored earlier"));
/** A task that the labeler chose in the list of their answers comes first: one that was sent is taken back with its answer. */
async function chosen() {
  const { searchParams } = new URL(location.href);
  const change = Number(searchParams.get("change"));
  const task = Number(searchParams.get("task"));
  if (!change && !task) return;
  history.replaceState(null, "", location.pathname);
  try {
    if (change) {
      await outbox.flush();
      const answer = await call("POST", `/api/projects/${project.id}/undo`, { client_id: uuid(), assignment: change });
      await need(answer.task);
      show(answer.task, null);
    } else {
      const own = await call("GET", `/api/assignments/${task}`);
      await need(own);
      queue.back({ ...own, seen: true });
      present();
    }
  } catch (error) {
    tell("failure", t("Not opened: {reason}", { reason: error.message }), { hint: error.code === "nothing_to_undo" ? t("It was taken back or set aside already.") : error.hint });
  }
}

await load();
await chosen();
void completed();
keepPage().catch(() => {}); // a browser without room, or in private mode: the page works all the same

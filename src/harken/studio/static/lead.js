// The lead's pages: files as they are, single items, numbers that stay fresh.

import { call } from "./api.js";
import { all, find } from "./dom.js";
import { tell } from "./messages.js";

const POLL_MS = 10_000;

function onSubmit(form, work) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = find("button[type=submit]", form);
    button.disabled = true;
    find(".error", form).textContent = "";
    try {
      await work();
    } catch (error) {
      find(".error", form).textContent = [error.message, error.hint].filter(Boolean).join(" ");
    } finally {
      button.disabled = false;
    }
  });
}

const count = (n, what) => `${n.toLocaleString("en")} ${n === 1 ? what.slice(0, -1) : what}`;

const repeated = (answer) => answer.repeats_an_answer
  ? ` ${answer.repeats_an_answer.toLocaleString("en")} of them hold the same answer twice: it is compared with itself.`
  : "";

function added(answer) {
  const already = answer.already ? `, ${answer.already.toLocaleString("en")} were there already` : "";
  const named = answer.names_its_maker
    ? ` ${answer.names_its_maker} of them say which model wrote them: labelers would know.`
    : "";
  const twice = repeated(answer);
  const notes = (answer.notes ?? []).map((note) => ` ${note}.`).join("");
  const kind = named || twice || notes ? "notice" : "stored";
  tell(kind, `${count(answer.added, "items")} added${already}.${named}${twice}${notes}`);
}

for (const form of all("form[data-file]")) {
  const [method, path] = form.dataset.file.split(" ");
  onSubmit(form, async () => {
    const [file] = find("input[type=file]", form).files; // its bytes as they are: the server knows encodings
    const answer = await call(method, path, await file.arrayBuffer(), { type: "application/x-ndjson" });
    if (form.dataset.judged === undefined) added(answer);
    else {
      const there = `${answer.already.toLocaleString("en")} were there already.`;
      const twice = repeated(answer);
      tell(twice ? "notice" : "stored", `${count(answer.added, answer.kind)} stored, ${there}${twice}`);
    }
    form.reset();
  });
}

for (const form of all("form[data-item]")) {
  const [method, path] = form.dataset.item.split(" ");
  onSubmit(form, async () => {
    const text = (name) => form.elements[name]?.value;
    const item = form.elements.ask ? { ask: { text: text("ask") } } : { prompt: text("prompt") };
    if (text("completions"))
      item.completions = text("completions")
        .split(/^---\s*$/m)
        .map((t) => t.trim())
        .filter(Boolean);
    if (text("original")) item.original = text("original");
    added(await call(method, path, { items: [item] }));
    form.reset();
  });
}

const lines = (text) =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);

/** A label's name in answers: its Latin letters and digits, and a hash of the whole where it has others or another label `has`
 *  that name ("Wrong?", "Wrong!"), so that labels of any script get different names. */
export function nameOf(label, has = () => false) {
  const latin = label
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "_")
    .replace(/^_+|_+$/g, "");
  const name = /^[a-z]/.test(latin) ? latin : `f_${latin}`.replace(/_+$/, "");
  if (!/[^\p{ASCII}]/u.test(label) && name.length <= 40 && latin && !has(name)) return name;
  let hash = 0x811c9dc5; // FNV-1a
  for (const byte of new TextEncoder().encode(label)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return `${name.slice(0, 31)}_${hash.toString(16).padStart(8, "0")}`;
}

/** Labels as the form's entries. A label that was there keeps its name, so that its figures go on. */
function named(labels, before) {
  const given = new Map(before.filter((f) => labels.includes(f.label)).map((f) => [f.label, f.name]));
  for (const label of labels)
    if (!given.has(label)) given.set(label, nameOf(label, (name) => [...given.values()].includes(name)));
  return labels.map((label) => ({ name: given.get(label), label })); // the same label twice is refused with its name
}

/** The lines of a form's questions as the API wants them; what is wrong with one is told with its line. */
export function readQuestions(text, before = []) {
  const given = new Set(before.map((q) => q.name));
  return lines(text).map((line, n) => {
    const [to, type, label, ...rest] = line.split("|").map((part) => part.trim());
    const [about, free] = to.split(/\s+/);
    const wrong = (words) => Object.assign(new Error(`Line ${n + 1}: ${words}`), { hint: "" });
    if (!["item", "answer", "turn"].includes(about)) throw wrong(`“${about}” is none of item, answer, turn.`);
    if (!["scale", "one", "several", "spans"].includes(type)) throw wrong(`“${type}” is none of scale, one, several, spans.`);
    if (!label) throw wrong("the question is missing.");
    const known = before.find((q) => q.label === label);
    const name = known?.name ?? nameOf(label, (one) => given.has(one));
    given.add(name);
    const question = { name, label, about, type, ...(free === "?" && { required: false }) };
    if (type !== "scale") return { ...question, options: named(rest.filter(Boolean), known?.options ?? []) };
    const [low, high] = rest.map((end) => /^(\d+)\s*(.*)$/.exec(end ?? ""));
    if (!low || !high) throw wrong("a scale needs its two ends, like | 1 bad | 7 good.");
    return { ...question, min: Number(low[1]), max: Number(high[1]), low: low[2], high: high[2] };
  });
}

for (const form of all("form[data-form]")) {
  const [method, path] = form.dataset.form.split(" ");
  onSubmit(form, async () => {
    const { version, ...now } = JSON.parse(form.dataset.now);
    const said = (name) => form.elements[name].value;
    now.prompt_flags = named(lines(said("prompt_flags")), now.prompt_flags);
    now.notes = form.elements.notes.checked;
    if (now.questions) now.questions = readQuestions(said("questions"), now.questions);
    if (now.strength) {
      const labels = lines(said("strength"));
      now.strength = { max: labels.length, labels };
    }
    if (now.rating) {
      Object.assign(now.rating.scale, { low: said("low"), high: said("high"), max: Number(said("max")) });
      const parts = lines(said("flags")).map((line) => line.split("|").map((part) => part.trim()));
      const flags = named(
        parts.map(([label]) => label),
        now.rating.flags,
      );
      now.rating.flags = flags.map((flag, i) => {
        const wanted = now.prompt_flags.find((f) => f.label === parts[i][1]);
        return { ...flag, only: parts[i][1] ? (wanted?.name ?? parts[i][1]) : null };
      });
    }
    await call(method, path, { ...now, seen: version });
    location.reload();
  });
}

// Progress is asked for again and again; an unchanged answer costs a header (ETag).
for (const section of all("[data-live]")) {
  const shown = (node) => Number(node.textContent.replaceAll(",", ""));
  setInterval(async () => {
    if (document.hidden) return;
    const now = await call("GET", section.dataset.live).catch(() => null);
    if (!now) return;
    for (const node of all("[data-field]", section)) {
      const value = now[node.dataset.field];
      if (value !== shown(node)) node.textContent = value.toLocaleString("en");
    }
  }, POLL_MS);
}

/** Rows that are ticked, and what is done with all of them at once. */
for (const form of all("form[data-bulk]")) {
  const [method, path] = form.dataset.bulk.split(" ");
  const boxes = all("[data-one]", form);
  const bulk = find(".bulk", form);
  const ticked = () => boxes.filter((box) => box.checked).map((box) => Number(box.value));
  const count = () => {
    if (!bulk) return;
    bulk.disabled = !ticked().length;
    find("[data-count]", bulk).textContent = ticked().length;
  };
  find("[data-all]", form)?.addEventListener("change", (event) => {
    for (const box of boxes) box.checked = event.target.checked;
    count();
  });
  form.addEventListener("change", count);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.submitter;
    if (button.dataset.sure && !button.dataset.asked) {
      button.dataset.asked = button.textContent;
      button.textContent = button.dataset.sure;
      return;
    }
    const body = { [form.dataset.ids]: ticked() };
    const { reason, overlap, assigned } = form.elements;
    if (button.name === "state") body.state = button.value;
    if (button.value === "set_aside" && reason) body.reason = reason.value;
    if (button.name === "set" && button.value === "overlap") body.overlap = Number(overlap.value);
    if (button.name === "set" && button.value === "assigned") body.assigned = assigned.value ? [Number(assigned.value)] : [];
    find(".error", form).textContent = "";
    try {
      await call(method, path, body);
      location.reload();
    } catch (error) {
      find(".error", form).textContent = [error.message, error.hint].filter(Boolean).join(" ");
    }
  });
  count();
}

/** A page's number joins the filters that are in the address already. */
for (const form of all("form[data-jump]"))
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const query = new URLSearchParams(location.search);
    query.set("page", form.elements.page.value);
    location.search = query;
  });

// What is being worked out is there a moment later.
if (find("[data-soon]")) setTimeout(() => location.reload(), 1500);

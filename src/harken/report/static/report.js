"use strict";
// The report's one script: a window over samples that are unpacked as they are looked at, and tables that sort.
// Every text is set as text, never as HTML.
const byId = id => document.getElementById(id);
const ROW = 58; // pixels a row of the list, as in style.css
const LONG_PROMPT = 600; // characters
const MOST_WORDS = 700; // longer texts are compared by their first words alone

// ---- data -------------------------------------------------------------------------------------
function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const packed = atob(base64), bytes = new Uint8Array(packed.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = packed.charCodeAt(i);
  return bytes;
}

const parsed = new Promise(done => document.readyState === "loading" ? document.addEventListener("DOMContentLoaded", done, { once: true }) : done());

// Most data stands behind this script, and is still being read when the first sample is shown: an element is whole once another follows.
async function whole(id) {
  if (!byId(id)?.nextElementSibling) await parsed;
  return byId(id);
}

async function unpack(id) {
  const held = await whole(id);
  if ("plain" in held.dataset) return JSON.parse(held.textContent);
  const stream = new Blob([bytesOf(held.textContent)]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

class Samples {
  constructor(number, about, block) { Object.assign(this, about, { number, block, blocks: new Map() }); }
  async open() {
    this.index ??= await unpack(`set-${this.number}`);
    this.marked ??= this.index.marks.map(places => new Set(places));
    return this;
  }
  part(b) {
    if (!this.blocks.has(b)) this.blocks.set(b, unpack(`set-${this.number}-${b}`));
    return this.blocks.get(b);
  }
  // Items lie in random order; this is the order in which they were recorded.
  async recorded() {
    this.places ??= await unpack(`set-${this.number}-order`);
    return this.places;
  }
  async item(i) { return (await this.part(Math.floor(i / this.block)))[i % this.block]; }
  score(column, i) { return this.index.scores[column][i]; }
}

// ---- words that differ: longest common subsequence over words ------------------------------------
function pieces(words) { return (words.match(/\s+|[\p{L}\p{N}_'’]+|[^\s\p{L}\p{N}_]/gu) ?? []).slice(0, 2 * MOST_WORDS); }

function differing(a, b) {
  const x = pieces(a), y = pieces(b), w = y.length + 1;
  const longest = new Uint16Array((x.length + 1) * w);
  for (let i = x.length - 1; i >= 0; i--) for (let j = y.length - 1; j >= 0; j--)
    longest[i * w + j] = x[i] === y[j] ? longest[(i + 1) * w + j + 1] + 1 : Math.max(longest[(i + 1) * w + j], longest[i * w + j + 1]);
  const own = new Set(), other = new Set();
  let i = 0, j = 0;
  while (i < x.length && j < y.length) {
    if (x[i] === y[j]) { i++; j++; }
    else if (longest[(i + 1) * w + j] >= longest[i * w + j + 1]) own.add(i++);
    else other.add(j++);
  }
  while (i < x.length) own.add(i++);
  while (j < y.length) other.add(j++);
  return [[x, own], [y, other]];
}

// ---- small makers ---------------------------------------------------------------------------------
function make(tag, className, words) {
  const e = document.createElement(tag);
  if (className) e.className = className;
  if (words !== undefined && words !== null) e.textContent = words;
  return e;
}
function shown(score) {
  if (score === null || score === undefined) return "no score";
  const size = Math.abs(score);
  return (Number.isInteger(score) && size < 1e4 ? String(score) : size >= 0.01 && size < 1e4 ? score.toFixed(2) : score.toPrecision(2))
    .replace("-", "−");
}
function choices(select, pairs, value) {
  select.replaceChildren(...pairs.map(([v, words]) => { const o = make("option", "", words); o.value = v; return o; }));
  if (value !== undefined) select.value = value;
  select.closest("label").hidden = pairs.length < 2;
}
function prose(words, marked) {
  if (words === null || words === undefined) return make("p", "none", "no answer");
  if (!words.trim()) return make("p", "none", "empty");
  const p = make("p", "words");
  p.dir = "auto";
  if (!marked) { p.textContent = words; return p; }
  const [parts, own] = marked;
  let length = 0;
  for (let i = 0; i < parts.length;) {
    const differs = own.has(i);
    let run = "";
    while (i < parts.length && own.has(i) === differs) run += parts[i++];
    length += run.length;
    p.append(differs && run.trim() ? make("mark", "", run) : run);
  }
  p.append(words.slice(length));
  return p;
}

// A long prompt, examples before a question, by its end; the whole is folded away, so that the answers stay in sight.
function prompt(words) {
  if (words.length <= LONG_PROMPT) return [prose(words)];
  const from = words.indexOf("\n", words.length - LONG_PROMPT / 2);
  const whole = make("details", "data");
  whole.append(make("summary", "", `The whole prompt, ${words.length.toLocaleString("en")} characters`), prose(words));
  return [prose(`…${words.slice(from < 0 ? words.length - LONG_PROMPT / 2 : from)}`), whole];
}

// ---- the browser ----------------------------------------------------------------------------------
class Browser {
  constructor(held) {
    this.sets = held.sets.map((about, n) => new Samples(n, about, held.block));
    this.list = byId("b-list");
    this.turn = 0;
    choices(byId("b-set"), this.sets.map((s, n) => [String(n), `${s.title} (${s.n.toLocaleString("en")})`]));
    byId("b-set").addEventListener("change", () => this.enter(Number(byId("b-set").value)));
    for (const id of ["b-left", "b-right", "b-group", "b-show", "b-order"]) byId(id).addEventListener("change", () => this.choose());
    byId("b-words").addEventListener("change", () => this.show());
    byId("b-find").addEventListener("input", () => { clearTimeout(this.waiting); this.waiting = setTimeout(() => this.choose(), 200); });
    document.querySelector(".controls").addEventListener("submit", e => e.preventDefault());
    this.list.addEventListener("scroll", () => requestAnimationFrame(() => this.draw()));
    this.list.addEventListener("keydown", e => this.key(e));
    this.list.addEventListener("click", e => {
      const row = e.target.closest("[data-at]");
      if (row) { this.go(Number(row.dataset.at)); if (matchMedia("(max-width: 60rem)").matches) byId("b-item").scrollIntoView(); }
    });
    window.addEventListener("hashchange", () => this.follow());
    new ResizeObserver(() => this.draw()).observe(this.list);
  }

  async follow() {
    const asked = /^#sample=(\d+)\.(\d+)$/.exec(location.hash);
    const set = asked && this.sets[Number(asked[1])] ? Number(asked[1]) : 0;
    const place = asked ? (await this.sets[set].recorded()).indexOf(Number(asked[2])) : -1;
    await this.enter(set, place < 0 ? undefined : place);
  }

  async enter(number, item) {
    this.set = await this.sets[number].open();
    byId("b-set").value = String(number);
    const columns = this.set.columns.map((name, i) => [String(i), name]);
    choices(byId("b-left"), columns, "0");
    choices(byId("b-right"), columns, String(Math.min(1, columns.length - 1)));
    choices(byId("b-group"), [["", "all"], ...this.set.groups.map((g, i) => [String(i), g])], "");
    byId("b-find").value = "";
    for (const option of byId("b-show").querySelectorAll("[data-mark]")) option.remove();
    this.set.marks.forEach((words, m) => {
      const option = make("option", "", words);
      option.value = `mark-${m}`;
      option.dataset.mark = m;
      byId("b-show").append(option);
    });
    byId("b-show").value = "all";
    const order = byId("b-order").value;
    await this.choose(item, order);
  }

  get left() { return Number(byId("b-left").value); }
  get right() { return Number(byId("b-right").value); }
  get two() { return this.set.columns.length > 1 && this.left !== this.right; }
  // Which side is better: 1 the left, -1 the right, 0 equal, null without both scores.
  side(i) {
    const a = this.set.score(this.left, i), b = this.set.score(this.right, i);
    if (a === null || b === null) return null;
    return Math.sign(a - b) * (this.set.better === "lower" ? -1 : 1);
  }

  async choose(item) {
    const turn = ++this.turn, set = this.set, group = byId("b-group").value, show = byId("b-show").value;
    const word = byId("b-find").value.trim().toLowerCase();
    const missing = i => [this.left, this.right].some(c => set.score(c, i) === null);
    const tests = { left: i => this.side(i) === 1, right: i => this.side(i) === -1, equal: i => this.two && this.side(i) === 0, missing };
    let kept = Array.from({ length: set.n }, (_, i) => i);
    if (group !== "") kept = kept.filter(i => set.index.groups[i] === Number(group));
    this.population = kept;
    if (tests[show]) kept = kept.filter(tests[show]);
    if (show.startsWith("mark-")) kept = kept.filter(i => set.marked[Number(show.slice(5))].has(i));
    if (word || show === "differ") {
      const found = [];
      const blocks = new Set(kept.map(i => Math.floor(i / set.block)));
      const want = new Set(kept);
      let read = 0;
      for (const b of blocks) {
        const part = await set.part(b);
        if (turn !== this.turn) return;
        part.forEach((row, k) => {
          const i = b * set.block + k;
          if (!want.has(i)) return;
          if (show === "differ" && row.a[this.left] === row.a[this.right]) return;
          const prompt = typeof row.p === "string" ? row.p : row.p.map(t => t[1]).join("\n");
          if (!word || [prompt, ...row.a].some(t => t && t.toLowerCase().includes(word))) found.push(i);
        });
        if (++read % 20 === 0) byId("b-count").textContent = `Reading ${read} of ${blocks.size} parts…`;
      }
      kept = found;
    }
    const places = byId("b-order").value === "recorded" ? await set.recorded() : null;
    if (turn !== this.turn) return;
    this.order = this.ordered(kept, places);
    this.at = Math.max(0, item === undefined ? 0 : this.order.indexOf(item));
    this.list.scrollTop = Math.max(0, this.at * ROW - this.list.clientHeight / 3);
    this.count(show !== "all" || Boolean(word));
    this.draw();
    await this.show(item !== undefined);
  }

  // Ties stay in random order, in which items lie.
  ordered(kept, places) {
    const set = this.set, how = byId("b-order").value;
    if (places) return kept.sort((i, j) => places[i] - places[j]);
    const last = (value, i) => value === null || Number.isNaN(value) ? -Infinity : value;
    const gap = i => {
      const a = set.score(this.left, i), b = set.score(this.right, i);
      return a === null || b === null ? null : Math.abs(a - b);
    };
    const key = { apart: gap, low: i => { const a = set.score(this.left, i); return a === null ? null : -a; },
      high: i => set.score(this.left, i) }[how];
    return key ? kept.sort((i, j) => last(key(j)) - last(key(i)) || 0) : kept;
  }

  // The numbers over what is shown. An interval only over everything of a group: items chosen by their scores have none.
  count(selected) {
    const n = this.order.length, all = this.set.n, parts = [];
    parts.push(n === all ? `${all.toLocaleString("en")} items` : `${n.toLocaleString("en")} of ${all.toLocaleString("en")} items`);
    if (!this.two) {
      const scores = this.population.map(i => this.set.score(this.left, i)).filter(x => x !== null);
      if (scores.length && !selected) parts.push(`mean score ${interval(scores)}`);
    } else if (!selected) {
      const sides = this.population.map(i => this.side(i));
      const gaps = this.population.filter((_, k) => sides[k] !== null).map(i => this.set.score(this.left, i) - this.set.score(this.right, i));
      const of = v => sides.filter(s => s === v).length.toLocaleString("en");
      if (gaps.length) parts.push(`left better ${of(1)}, equal ${of(0)}, right better ${of(-1)}`, `left − right ${interval(gaps)}`);
    }
    if (!selected) this.set.marks.forEach((words, m) => {
      const marked = this.population.filter(i => this.set.marked[m].has(i)).length;
      if (marked) parts.push(`${words}: ${marked.toLocaleString("en")}`);
    });
    const lost = this.population.filter(i => [this.left, this.right].some(c => this.set.score(c, i) === null)).length;
    if (lost && !selected) parts.push(`${lost.toLocaleString("en")} without a score, in no figure`);
    if (this.set.better === "lower") parts.push("lower is better");
    byId("b-count").textContent = `${parts.join(" · ")}.`;
  }

  draw() {
    if (!this.order) return;
    const high = this.list.clientHeight || 400;
    const from = Math.max(0, Math.floor(this.list.scrollTop / ROW) - 4);
    const to = Math.min(this.order.length, Math.ceil((this.list.scrollTop + high) / ROW) + 4);
    const space = make("div", "space");
    space.role = "presentation";
    space.style.height = `${this.order.length * ROW}px`;
    for (let at = from; at < to; at++) space.append(this.row(at));
    if (!this.order.length) {
      const none = make("div", "row none", "Nothing matches.");
      none.role = "option";
      none.ariaSelected = "false";
      space.append(none);
    }
    this.list.replaceChildren(space);
    if (this.at >= from && this.at < to) this.list.setAttribute("aria-activedescendant", `b-row-${this.at}`);
    else this.list.removeAttribute("aria-activedescendant");
  }

  row(at) {
    const i = this.order[at], row = make("div", at === this.at ? "row chosen" : "row");
    row.id = `b-row-${at}`;
    row.role = "option";
    row.dataset.at = at;
    row.style.top = `${at * ROW}px`;
    row.ariaSelected = String(at === this.at);
    row.ariaSetSize = String(this.order.length);
    row.ariaPosInSet = String(at + 1);
    const name = make("span", "opening", "…");
    name.dir = "auto";
    this.set.item(i).then(item => { name.textContent = item.o || "(no prompt)"; });
    const group = this.set.groups[this.set.index.groups[i]] ?? "";
    const scores = (this.two ? [this.left, this.right] : [this.left]).map(c => shown(this.set.score(c, i))).join(" | ");
    row.append(name, make("span", "under", [scores, group].filter(Boolean).join(" · ")));
    return row;
  }

  key(e) {
    const page = Math.max(1, Math.floor(this.list.clientHeight / ROW) - 1);
    const to = { ArrowDown: this.at + 1, ArrowUp: this.at - 1, j: this.at + 1, k: this.at - 1, PageDown: this.at + page,
      PageUp: this.at - page, Home: 0, End: this.order.length - 1 }[e.key];
    if (to === undefined || e.ctrlKey || e.metaKey || e.altKey) return;
    e.preventDefault();
    this.go(to);
  }

  go(to) {
    if (!this.order.length) return;
    this.at = Math.min(Math.max(to, 0), this.order.length - 1);
    const top = this.at * ROW, list = this.list;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    this.draw();
    this.show(true);
  }

  async show(link = false) {
    const place = byId("b-item"), set = this.set, i = this.order[this.at], turn = this.turn;
    if (i === undefined) { place.replaceChildren(make("p", "none pad", "Nothing matches. Choose other groups or words.")); return; }
    const row = await set.item(i);
    if (set !== this.set || i !== this.order[this.at] || turn !== this.turn) return;
    if (link) try { history.replaceState(null, "", `#sample=${set.number}.${row.n}`); } catch { /* some browsers forbid it for files */ }
    place.replaceChildren(this.head(row, i), this.answers(row, i), this.details(row));
    place.scrollTop = 0;
  }

  head(row, i) {
    const head = make("header"), bar = make("div", "bar-of-item");
    bar.append(make("h3", "", `${(this.at + 1).toLocaleString("en")} of ${this.order.length.toLocaleString("en")}`));
    const move = (words, by, off) => {
      const button = make("button", "step", words);
      button.type = "button";
      button.disabled = off;
      button.addEventListener("click", () => this.go(this.at + by));
      return button;
    };
    const link = make("a", "permalink", "link to this sample");
    link.href = `#sample=${this.set.number}.${row.n}`;
    bar.append(move("← previous", -1, this.at === 0), move("next →", 1, this.at === this.order.length - 1), link);
    head.append(bar);
    if (typeof row.p === "string") head.append(...prompt(row.p));
    else for (const [role, words] of row.p) {
      const turn = make("div", "turn");
      turn.append(make("span", "role", role), prose(words));
      head.append(turn);
    }
    return head;
  }

  answers(row, i) {
    const grid = make("div", "answers"), columns = this.two ? [this.left, this.right] : [this.left];
    const texts = columns.map(c => row.a[c] ?? null);
    const marked = this.two && byId("b-words").checked && texts.every(t => t !== null) ? differing(...texts) : [];
    const side = this.two ? this.side(i) : null;
    columns.forEach((c, k) => {
      const box = make("div", "answer"), head = make("h4", "", this.set.columns[c]);
      const score = this.set.score(c, i), best = side === (k === 0 ? 1 : -1);
      const chip = make("span", `chip${best ? " top" : ""}${score === null ? " none" : ""}`, `${shown(score)}${best ? " · better" : ""}`);
      head.append(" ", chip);
      box.append(head, prose(texts[k], marked[k]));
      if (row.w?.[c]) box.append(make("p", "small", row.w[c]));
      grid.append(box);
    });
    return grid;
  }

  details(row) {
    const box = make("dl", "fields");
    for (const [name, value] of Object.entries(row.d ?? {})) {
      const pair = make("div");
      pair.append(make("dt", "", name), make("dd", value === null ? "none" : "", value === null ? "none" : typeof value === "number" ? shown(value) : String(value)));
      box.append(pair);
    }
    return box.children.length ? box : "";
  }
}

// Mean with a 95 % interval (normal approximation), for the line above the list.
function interval(values) {
  const n = values.length, mean = values.reduce((s, v) => s + v, 0) / n;
  const sd = Math.sqrt(values.reduce((s, v) => s + (v - mean) ** 2, 0) / Math.max(1, n - 1)), half = 1.96 * sd / Math.sqrt(n);
  const two = v => v.toFixed(3).replace("-", "−");
  return n < 2 ? two(mean) : `${two(mean)} [${two(mean - half)}, ${two(mean + half)}]`;
}

// ---- tables that sort -----------------------------------------------------------------------------
function sortable(table) {
  const body = table.tBodies[0];
  if (!body || body.rows.length < 3 || !table.tHead) return;
  const original = [...body.rows];
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    if (!cell.textContent.trim()) return;
    const button = make("button", "sort");
    button.type = "button";
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const now = cell.getAttribute("aria-sort"), next = now === "descending" ? "ascending" : now === "ascending" ? null : "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (next) cell.setAttribute("aria-sort", next);
      const rows = next ? [...original].sort((a, b) => order(value(a.cells[column]), value(b.cells[column])) * (next === "descending" ? -1 : 1)) : original;
      body.append(...rows);
    });
  });
}
function value(cell) {
  const words = (cell?.querySelector(".value") ?? cell)?.textContent.trim() ?? "";
  const number = parseFloat(words.replace(/−/g, "-").replace(/,/g, ""));
  return /^[-−+]?[\d.]/.test(words) && Number.isFinite(number) ? number : words;
}
function order(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b);
  return typeof a === "number" ? 1 : -1; // words, and "not measured", end up last when numbers fall
}

document.querySelectorAll("main table").forEach(sortable);
if (byId("sets") && "DecompressionStream" in window) {
  byId("browser").hidden = false;
  document.documentElement.classList.add("browsing");
  unpack("sets").then(held => new Browser(held).follow()).then(() => { document.documentElement.dataset.ready = "yes"; });
}

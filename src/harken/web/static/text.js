// Markdown as elements, built node by node: no HTML passes through, images are named but never loaded, and links go only
// to http(s). A deliberate subset: what models write (headings, lists, code, tables, quotes, emphasis, links).

import { el } from "./dom.js";
import { highlight } from "./highlight.js";

const DEEPEST = 8; // nested quotes or lists beyond this stay plain text

/** A fragment for untrusted Markdown. A line's end is kept, as in chats; `flow` makes it a space, as in documents. */
export function render(text, { flow = false } = {}) {
  const fragment = document.createDocumentFragment();
  fragment.append(...blocks(text.replace(/\r\n?/g, "\n").split("\n"), 0));
  const formulas = [...fragment.querySelectorAll(".math")];
  if (formulas.length) import("./math.js").then((m) => m.typeset(formulas)).catch(() => {}); // offline: they stay as written
  if (flow) fragment.querySelectorAll("br").forEach((br) => br.replaceWith(" "));
  return fragment;
}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*?)\s*#*\s*$/;
const RULE = /^ {0,3}([-*_])( *\1){2,}\s*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])\s+(?=\S)/;
const MATH = /^\s*(\$\$|\\\[)/;
const DIVIDER = /^ {0,3}\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;

function blocks(lines, depth) {
  const out = [];
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    if (!line.trim()) {
      at += 1;
      continue;
    }
    const take =
      depth >= DEEPEST
        ? paragraph
        : FENCE.test(line)
          ? fence
          : HEADING.test(line)
            ? heading
            : RULE.test(line)
              ? rule
              : QUOTE.test(line)
                ? quote
                : ITEM.test(line)
                  ? list
                : MATH.test(line)
                  ? math
                  : isTable(lines, at)
                    ? table
                    : paragraph;
    const [node, next] = take(lines, at, depth);
    out.push(node);
    at = next;
  }
  return out;
}

function fence(lines, at) {
  const [, marks, language] = FENCE.exec(lines[at]);
  const body = [];
  let end = at + 1;
  while (
    end < lines.length &&
    !(lines[end].trim().startsWith(marks) && !lines[end].trim().slice(marks.length).replaceAll(marks[0], ""))
  ) {
    body.push(lines[end]);
    end += 1;
  }
  return [
    el(
      "pre",
      { tabindex: 0, "aria-label": language ? `${language} code` : "code", role: "group", "data-language": language || null },
      el("code", {}, highlight(body.join("\n"), language)),
    ),
    end + 1,
  ];
}

// Not h1–h6: an answer's headings are no part of the page's outline.
function heading(lines, at) {
  const [, marks, words] = HEADING.exec(lines[at]);
  return [el("p", { class: `heading level${Math.min(marks.length, 3)}` }, inline(words)), at + 1];
}

/** Displayed LaTeX as it was written: its marks, its underscores and stars are no Markdown. Without an end it is text. */
function math(lines, at, depth) {
  const close = MATH.exec(lines[at])[1] === "$$" ? "$$" : "\\]";
  const first = lines[at].trimStart().slice(2);
  let end = at;
  while (end < lines.length && !(end === at ? first : lines[end]).includes(close)) end += 1;
  const last = end === at ? first : lines[end];
  if (end >= lines.length || last.trimEnd().indexOf(close) + 2 < last.trimEnd().length) return paragraph(lines, at, depth);
  return [el("p", { class: "math", dir: "ltr" }, lines.slice(at, end + 1).join("\n")), end + 1];
}

function rule(lines, at) {
  return [el("hr"), at + 1];
}

function quote(lines, at, depth) {
  const inner = [];
  while (at < lines.length && QUOTE.test(lines[at])) inner.push(lines[at++].replace(QUOTE, ""));
  return [el("blockquote", {}, blocks(inner, depth + 1)), at];
}

function list(lines, at, depth) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const items = [];
  while (at < lines.length) {
    const found = ITEM.exec(lines[at]);
    if (!found || found[1].length !== indent.length || /\d/.test(found[2]) !== ordered) break;
    const width = found[0].length;
    const inner = [lines[at].slice(width)];
    at += 1;
    while (at < lines.length) {
      const next = lines[at];
      const spaces = next.length - next.trimStart().length;
      if (next.trim() && spaces <= indent.length) break;
      if (!next.trim() && !continues(lines, at, indent.length)) break;
      inner.push(next.slice(Math.min(spaces, width)));
      at += 1;
    }
    const inside = blocks(inner, depth + 1);
    const single = inside.length && inside[0].tagName === "P" && !inside[0].className;
    items.push(el("li", {}, single ? [...inside[0].childNodes] : inside.slice(0, 1), inside.slice(1)));
    while (at < lines.length && !lines[at].trim() && ITEM.test(lines[at + 1] ?? "")) at += 1;
  }
  return [el(ordered ? "ol" : "ul", { dir: "auto", start: ordered && mark.slice(0, -1) !== "1" ? parseInt(mark, 10) : null }, items), at];
}

function continues(lines, at, indent) {
  const next = lines.slice(at).find((line) => line.trim());
  return next !== undefined && next.length - next.trimStart().length > indent;
}

const isTable = (lines, at) =>
  lines[at].includes("|") && at + 1 < lines.length && DIVIDER.test(lines[at + 1]) && lines[at + 1].includes("-");

function cells(line) {
  const inner = line
    .trim()
    .replace(/^\|/, "")
    .replace(/(?<!\\)\|$/, "");
  return inner.split(/(?<!\\)\|/).map((c) => c.trim().replaceAll("\\|", "|"));
}

function table(lines, at) {
  const head = cells(lines[at]);
  const rows = [];
  at += 2;
  while (at < lines.length && lines[at].includes("|") && lines[at].trim()) rows.push(cells(lines[at++]));
  return [
    el(
      "div",
      { class: "scroll", tabindex: 0, role: "group", "aria-label": "table" },
      el(
        "table",
        {},
        el(
          "thead",
          {},
          el(
            "tr",
            {},
            head.map((c) => el("th", {}, inline(c))),
          ),
        ),
        el(
          "tbody",
          {},
          rows.map((r) =>
            el(
              "tr",
              {},
              head.map((_, i) => el("td", {}, inline(r[i] ?? ""))),
            ),
          ),
        ),
      ),
    ),
    at,
  ];
}

function paragraph(lines, at, depth) {
  const start = at;
  const starts = (line) => FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || ITEM.test(line);
  while (at < lines.length && lines[at].trim() && (at === start || depth >= DEEPEST || !starts(lines[at]))) at += 1;
  const broken = lines.slice(start, at).flatMap((line, i) => (i ? [el("br"), ...inline(line)] : inline(line)));
  return [el("p", {}, broken), at];
}

// One alternative a construct; each is bounded by its own closing mark, so matching stays linear in practice.
const INLINE = new RegExp(
  [
    /\\([\\`*_{}#+\-.!|~>])/, // 1 escaped; not brackets, which are LaTeX's marks
    /(`+)(?!`)([^\n]*?[^`])\2(?!`)/, // 2, 3 code
    /!\[([^\]\n]{0,300})\]\([^)\n]{0,2000}\)/, // 4 image
    /\[([^\]\n]{1,500})\]\(\s*<?([^)\s>]{1,2000})>?[^)\n]{0,200}\)/, // 5, 6 link
    /(https?:\/\/[^\s<>"')\]]{1,2000}[^\s<>"')\].,;:!?])/, // 7 bare address
    /(\*\*|__)(?=\S)([^\n]{0,2000}?\S)\8/, // 8, 9 strong
    /(?<![\w*])([*_])(?=[^\s*_])([^\n*_]{0,2000}?[^\s*_])\10(?!\w)/, // 10, 11 emphasis
    /~~(?=\S)([^\n~]{1,2000})~~/, // 12 struck
    /(\\\([^\n]{1,2000}?\\\)|\\\[[^\n]{1,2000}?\\\]|\$\$[^\n$]{1,2000}\$\$|\$(?=[^\s$])[^\n$]{0,500}?[^\s$\\]\$(?![\w$]))/, // 13 LaTeX
  ]
    .map((r) => r.source)
    .join("|"),
  "g",
);

function inline(text, depth = 0) {
  if (depth > 4) return [text];
  const out = [];
  let last = 0;
  for (const m of text.matchAll(INLINE)) {
    out.push(text.slice(last, m.index), node(m, depth));
    last = m.index + m[0].length;
  }
  out.push(text.slice(last));
  return out.filter((n) => n !== "");
}

function node(m, depth) {
  if (m[1]) return m[1];
  if (m[2]) return el("code", {}, m[3].replace(/^ (.*) $/, "$1"));
  if (m[4] !== undefined) return el("span", { class: "image" }, `[image: ${m[4] || "no description"}]`);
  if (m[6]) return link(m[6], inline(m[5], depth + 1), m[0]);
  if (m[7]) return link(m[7], [m[7]], m[7]);
  if (m[8]) return el("strong", {}, inline(m[9], depth + 1));
  if (m[10]) return el("em", {}, inline(m[11], depth + 1));
  if (m[13]) return el("span", { class: "math" }, m[13]);
  return el("s", {}, inline(m[12], depth + 1));
}

function link(address, words, source) {
  if (!/^https?:\/\//i.test(address)) return source;
  return el("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow", title: address }, words);
}

// Code in colours: comments, strings, numbers, keywords. It guesses by the language's family and is never wrong about the text:
// the pieces join to what was written.

import { el } from "./dom.js";

const LONGEST = 50_000;
const words = (list) => new Set(list.split(" "));
const FAMILY = {
  python: {
    comment: "#[^\\n]*",
    string: "[rbfRBF]{0,2}(?:\"\"\"[\\s\\S]*?(?:\"\"\"|$)|'''[\\s\\S]*?(?:'''|$)|\"(?:\\\\.|[^\"\\\\\\n])*\"?|'(?:\\\\.|[^'\\\\\\n])*'?)",
    keywords: words(
      "and as assert async await break case class continue def del elif else except False finally for from global if import in is " +
        "lambda match None nonlocal not or pass raise return True try while with yield",
    ),
  },
  c: {
    comment: "//[^\\n]*|/\\*[\\s\\S]*?(?:\\*/|$)",
    string: '"(?:\\\\.|[^"\\\\\\n])*"?|\'(?:\\\\.|[^\'\\\\\\n])*\'?|`(?:\\\\.|[^`\\\\])*`?',
    keywords: words(
      "abstract async auto await bool boolean break case catch char class const constexpr continue default delete do double else enum " +
        "export extends extern false final finally float fn for foreach from func function go if impl implements import in include " +
        "inline instanceof int interface let long loop map match mod mut namespace new nil null nullptr override package private " +
        "protected pub public range return self short signed sizeof static string struct super switch template this throw throws " +
        "trait true try type typedef typeof undefined union unsigned use using val var virtual void volatile when where while yield",
    ),
  },
  shell: {
    comment: "(?<=^|\\s)#[^\\n]*",
    string: '"(?:\\\\.|[^"\\\\])*"?|\'[^\']*\'?',
    keywords: words("if then else elif fi for while until do done case esac in function return local export set unset echo exit source"),
  },
  sql: {
    comment: "--[^\\n]*|/\\*[\\s\\S]*?(?:\\*/|$)",
    string: "'(?:''|[^'])*'?|\"(?:\"\"|[^\"])*\"?",
    keywords: words(
      "select from where and or not null is in like between join inner left right outer full on group by order having limit offset " +
        "insert into values update set delete create table index view drop alter add primary key foreign references unique default " +
        "as distinct union all case when then else end exists with asc desc count sum avg min max",
    ),
    anyCase: true,
  },
  data: { comment: "#[^\\n]*", string: '"(?:\\\\.|[^"\\\\\\n])*"?', keywords: words("true false null yes no") },
  markup: { comment: "<!--[\\s\\S]*?(?:-->|$)", string: '"[^"\\n]*"|\'[^\'\\n]*\'', keywords: new Set(), tags: true },
};
const NAMES = {
  python: "python py python3 ipython starlark",
  c: "c h cpp c++ cc hpp cs csharp c# java js javascript jsx mjs node ts typescript tsx go golang rust rs swift kotlin kt php scala dart",
  shell: "sh bash zsh shell console fish dockerfile makefile make powershell",
  sql: "sql postgresql mysql sqlite plsql",
  data: "json yaml yml toml ini jsonl json5",
  markup: "html xml svg vue xhtml",
};
const OF = new Map(Object.entries(NAMES).flatMap(([family, names]) => names.split(" ").map((name) => [name, family])));
const readers = new Map();

function reader(family) {
  if (!readers.has(family)) {
    const { comment, string, tags } = FAMILY[family];
    const word = tags ? "</?[A-Za-z][\\w:-]*|/?>" : "[A-Za-z_$][\\w$]*";
    readers.set(family, new RegExp(`(${comment})|(${string})|(\\b\\d[\\w.]*)|(${word})`, "g"));
  }
  return readers.get(family);
}

/** The code as strings and coloured spans; unknown languages stay plain. */
export function highlight(code, language) {
  const family = OF.get((language ?? "").toLowerCase());
  if (!family || code.length > LONGEST) return [code];
  const { keywords, anyCase, tags } = FAMILY[family];
  const out = [];
  let last = 0;
  for (const m of code.matchAll(reader(family))) {
    const known = m[4] && (tags || keywords.has(anyCase ? m[4].toLowerCase() : m[4]));
    const kind = m[1] ? "comment" : m[2] ? "string" : m[3] ? "figure" : known ? "keyword" : null;
    if (!kind || !m[0]) continue;
    if (m.index > last) out.push(code.slice(last, m.index));
    out.push(el("span", { class: `code-${kind}` }, m[0]));
    last = m.index + m[0].length;
  }
  if (last < code.length) out.push(code.slice(last));
  return out;
}

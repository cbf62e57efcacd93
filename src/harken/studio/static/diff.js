// Where two texts differ: sentences are aligned first, then words within aligned sentences. Reading two near-identical
// answers is mostly looking for this.

const SAME_SENTENCE = 0.35; // least share of common words for two sentences to count as versions of one
const WORD = /\s+|[\p{L}\p{N}_'’]+|[^\s\p{L}\p{N}_]/gu;

export const words = (text) => text.match(WORD) ?? [];

export function sentences(text) {
  return text.match(/[^.!?\n]*(?:[.!?]+(?=\s|$)|[.!?](?=\S)|\n+|$)\s*/gu)?.filter((s) => s) ?? [];
}

/** [left, right]: each the text again, cut into {text, kind}, kind "same", "changed" (another word in an aligned sentence)
 *  or "only" (a sentence the other does not have). */
export function compare(left, right) {
  const a = sentences(left);
  const b = sentences(right);
  const pair = align(a.map(bag), b.map(bag));
  const outA = [];
  const outB = [];
  const partner = new Map(pair);
  const taken = new Set(pair.map(([, j]) => j));
  const diffs = new Map(pair.map(([i, j]) => [i, wordDiff(words(a[i]), words(b[j]))]));
  a.forEach((s, i) => outA.push(...(partner.has(i) ? diffs.get(i)[0] : [{ text: s, kind: "only" }])));
  const back = new Map(pair.map(([i, j]) => [j, i]));
  b.forEach((s, j) => outB.push(...(taken.has(j) ? diffs.get(back.get(j))[1] : [{ text: s, kind: "only" }])));
  return [merge(outA), merge(outB)];
}

function bag(sentence) {
  const counts = new Map();
  for (const w of words(sentence.toLowerCase())) if (w.trim()) counts.set(w, (counts.get(w) ?? 0) + 1);
  return counts;
}

/** Dice's coefficient of two bags of words: 1 the same, 0 nothing shared. */
function likeness(a, b) {
  let shared = 0;
  let total = 0;
  for (const [w, n] of a) {
    shared += Math.min(n, b.get(w) ?? 0);
    total += n;
  }
  for (const n of b.values()) total += n;
  return total ? (2 * shared) / total : 0;
}

/** Pairs (i, j), increasing in both, of greatest total likeness (Needleman–Wunsch without gap costs). */
function align(a, b) {
  const best = Array.from({ length: a.length + 1 }, () => new Float64Array(b.length + 1));
  const alike = a.map((x) =>
    b.map((y) => {
      const s = likeness(x, y);
      return s >= SAME_SENTENCE ? s : 0;
    }),
  );
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      const paired = alike[i][j] ? alike[i][j] + best[i + 1][j + 1] : 0;
      best[i][j] = Math.max(best[i + 1][j], best[i][j + 1], paired);
    }
  }
  const pairs = [];
  for (let i = 0, j = 0; i < a.length && j < b.length;) {
    if (alike[i][j] && best[i][j] === alike[i][j] + best[i + 1][j + 1]) pairs.push([i++, j++]);
    else if (best[i][j] === best[i + 1][j]) i += 1;
    else j += 1;
  }
  return pairs;
}

const LONGEST = 600; // words; a longer sentence is marked as a whole: the table below is quadratic

/** The words of both sides, marked same or changed, by the longest common subsequence. */
export function wordDiff(a, b) {
  if (a.length > LONGEST || b.length > LONGEST) {
    const kind = a.join("") === b.join("") ? "same" : "changed";
    return [[{ text: a.join(""), kind }], [{ text: b.join(""), kind }]];
  }
  const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
    }
  }
  const left = [];
  const right = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      left.push({ text: a[i++], kind: "same" });
      right.push({ text: b[j++], kind: "same" });
    } else if (j >= b.length || (i < a.length && length[i + 1][j] >= length[i][j + 1]))
      left.push({ text: a[i++], kind: "changed" });
    else right.push({ text: b[j++], kind: "changed" });
  }
  return [left, right];
}

/** Joins neighbours of one kind; a lone space between two changed words changes with them. */
export function merge(runs) {
  const out = [];
  runs.forEach((run, i) => {
    const bridge = run.kind === "same" && !run.text.trim() && out.at(-1)?.kind === "changed" && runs[i + 1]?.kind === "changed";
    const kind = bridge ? "changed" : run.kind;
    if (out.at(-1)?.kind === kind) out.at(-1).text += run.text;
    else out.push({ text: run.text, kind });
  });
  return out;
}

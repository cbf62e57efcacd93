// The state of a ranking, without any page: ranks[i] belongs to the i-th answer shown; null is not ranked yet; 1 is best.

/** 1, 3, 3 → 1, 2, 2: what a ranking says, without the gaps. Unranked answers stay null. */
export function dense(ranks) {
  const used = [...new Set(ranks.filter((r) => r !== null))].sort((a, b) => a - b);
  return ranks.map((r) => (r === null ? null : used.indexOf(r) + 1));
}

export const complete = (ranks) => ranks.every((r) => r !== null);

/** Indices by rank, ties together: [[2], [0, 3], [1]]. */
export function rows(ranks) {
  const of = dense(ranks);
  const count = Math.max(0, ...of.filter((r) => r !== null));
  return Array.from({ length: count }, (_, at) => of.flatMap((r, i) => (r === at + 1 ? [i] : [])));
}

/** The next answer without a rank after `from`, going round; -1 when all have one. */
export function nextOpen(ranks, from) {
  for (let step = 1; step <= ranks.length; step += 1) {
    const at = (from + step) % ranks.length;
    if (ranks[at] === null) return at;
  }
  return -1;
}

/** Pairs [i, j] where i was rated higher than j but ranked below it (F14). */
export function contradictions(ratings, ranks) {
  const out = [];
  ratings.forEach((a, i) =>
    ratings.forEach((b, j) => {
      if (a !== null && b !== null && ranks[i] !== null && ranks[j] !== null && a > b && ranks[i] > ranks[j]) out.push([i, j]);
    }),
  );
  return out;
}

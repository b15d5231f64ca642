/** What two rankings and an answer's headers say. Pure: no element is touched here. */

/** Identity of a hit: a search may span several indices. */
export const keyOf = (hit) => `${hit._index}\u0000${hit._id}`;

/** Key → rank (first is 1), of the hits of an answer. */
export const ranksOf = (hits) => new Map(hits.map((hit, place) => [keyOf(hit), place + 1]));

/**
 * How a hit at `rank` of the right ranking stands to its rank on the left (undefined: not among the hits shown
 * there). Gives a sign for the eye, and words for everyone.
 */
export function move(rank, leftRank) {
  if (leftRank === undefined) return { kind: "new", sign: "new", words: "not among the hits on the left" };
  const places = leftRank - rank;
  if (places === 0) return { kind: "same", sign: "=", words: "the same rank on the left" };
  const kind = places > 0 ? "up" : "down";
  return {
    kind,
    sign: `${places > 0 ? "▲" : "▼"}${Math.abs(places)}`,
    words: `${kind} ${Math.abs(places)}, from rank ${leftRank} on the left`,
  };
}

/** Where the right ranking has a hit of the left one. */
export function whereabouts(rightRank) {
  if (rightRank === undefined) return { kind: "gone", sign: "only", words: "not among the hits on the right" };
  return { kind: "kept", sign: `→${rightRank}`, words: `rank ${rightRank} on the right` };
}

/** How many hits both rankings have, and each alone. */
export function overlap(left, right) {
  const inLeft = ranksOf(left);
  const inRight = ranksOf(right);
  const common = [...inLeft.keys()].filter((key) => inRight.has(key)).length;
  return { common, leftOnly: inLeft.size - common, rightOnly: inRight.size - common };
}

/** X-Bridge: "hybrid+rerank; degraded=a,b; repaired=serach>search; took_ms=48" or "pass; reason=sort". */
export function readMark(mark) {
  const [done = "", ...facts] = mark.split(";").map((part) => part.trim());
  const named = Object.fromEntries(facts.map((fact) => fact.split("=", 2)));
  return {
    done,
    reason: named.reason,
    degraded: named.degraded ? named.degraded.split(",") : [],
    repaired: (named.repaired?.split(",") ?? []).map((words) => words.split(">").map(decodeURIComponent)),
    tookMs: named.took_ms === undefined ? undefined : Number(named.took_ms),
  };
}

/** Server-Timing: "embed;dur=6.1, legs;dur=12.0" as [{stage, ms}], in its order. */
export function readTimings(header) {
  return [...header.matchAll(/([\w-]+)\s*;\s*dur=([\d.]+)/g)].map(([, stage, ms]) => ({ stage, ms: Number(ms) }));
}

/**
 * nDCG@10 with linear gains (Järvelin & Kekäläinen 2002) of hits against grades by document id; undefined where
 * nothing relevant was judged. What was not judged counts as not relevant.
 */
export function ndcg(hits, grades, depth = 10) {
  const gain = (list) => list.slice(0, depth).reduce((sum, grade, place) => sum + grade / Math.log2(place + 2), 0);
  const ideal = gain(Object.values(grades).sort((a, b) => b - a));
  return ideal > 0 ? gain(hits.map((hit) => grades[hit._id] ?? 0)) / ideal : undefined;
}

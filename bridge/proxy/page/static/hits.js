/** One hit as a card: where it stands, why, its text, and the viewer's judgement. */

import { element } from "./dom.js";
import { move, whereabouts } from "./comparison.js";
import { GRADES } from "./judgements.js";

/** In the order in which they are shown. */
const LEG_NAMES = { lexical: "own words", expansion: "predicted queries", vector: "vectors", sparse: "weighted terms", image: "pictures" };
const SHOWN_CHARS = 320;
const CONTEXT_CHARS = 80;

/** How a picture in base64 begins, and its type. */
const PICTURES = { "/9j/": "jpeg", "iVBORw0KGgo": "png", R0lGOD: "gif", UklGR: "webp", Qk: "bmp" };
const PICTURE_IN_DOCUMENT = /^data:image\/(jpeg|png|gif|webp|bmp);base64,/i;

/**
 * The cards of one column. `context`: `column` (left or right), `otherRanks`, `otherExplanations` (key → explanation in the
 * other column), `textFields`, `imageField` (undefined if there is none), `gradeOf(docId)`, `judged(docId, grade)` (absent if there is no query to judge by).
 */
export function hitCards(hits, keys, context) {
  const explanations = hits.map((hit, place) => hit._bridge ?? context.otherExplanations.get(keys[place]) ?? {});
  const scales = scalesOf(hits, explanations);
  return hits.map((hit, place) => {
    const rank = place + 1;
    const otherRank = context.otherRanks.get(keys[place]);
    const moved = context.column === "right" ? move(rank, otherRank) : whereabouts(otherRank);
    const texts = context.textFields.map((name) => valueAt(hit._source, name)).filter(Boolean);
    const [title = hit._id, ...rest] = texts;
    return element("li", { class: `hit ${moved.kind}` },
      element("div", { class: "place" },
        element("span", { class: "rank" }, String(rank)),
        element("span", { class: "move", title: moved.words },
          element("span", { "aria-hidden": "true" }, moved.sign), element("span", { class: "unseen" }, moved.words))),
      element("div", { class: "what" },
        element("h2", {}, title.length > 120 ? `${title.slice(0, 120)}…` : title),
        picture(hit, context.imageField),
        snippet(rest.join(" "), explanations[place].passage?.text),
        predictedQueries(explanations[place]),
        commonTerms(explanations[place]),
        bars(hit, explanations[place], scales),
        element("div", { class: "foot" },
          element("code", { class: "id", title: hit._index }, hit._id),
          judgement(hit._id, rank, context),
          element("details", { class: "raw" }, element("summary", {}, "JSON"),
            element("pre", { tabindex: "0" }, JSON.stringify(hit, null, 2)))),
      ));
  });
}

function valueAt(source, path) {
  const value = source?.[path] ?? path.split(".").reduce((object, name) => object?.[name], source);
  return Array.isArray(value) ? value.join(" ") : value == null ? "" : String(value);
}

/** The picture, if the document holds it; else where it lies, in words: the page loads nothing from elsewhere. */
function picture(hit, field) {
  const found = field && (hit._source?.[field] ?? field.split(".").reduce((object, name) => object?.[name], hit._source));
  const value = Array.isArray(found) ? found[0] : found;
  if (typeof value !== "string" || !value) return null;
  const [, type] = Object.entries(PICTURES).find(([start]) => value.startsWith(start)) ?? [];
  const inBase64 = type && value.length > 100 && /^[A-Za-z0-9+/\s]+=*\s*$/.test(value);
  const source = PICTURE_IN_DOCUMENT.test(value) ? value : inBase64 ? `data:image/${type};base64,${value}` : null;
  if (!source) return element("p", { class: "text" }, value.slice(0, SHOWN_CHARS));
  return element("img", { class: "picture", src: source, alt: `Picture of ${hit._id}`, loading: "lazy" });
}

/** The text's beginning, or the winning passage, marked, in its surroundings. */
function snippet(text, passage) {
  if (!text && !passage) return null;
  const start = passage ? text.indexOf(passage) : -1;
  if (start < 0) {
    const shown = passage ?? text;
    const cut = shown.length > SHOWN_CHARS ? `${shown.slice(0, SHOWN_CHARS)}…` : shown;
    return element("p", { class: "text" }, passage ? element("mark", { title: "winning passage" }, cut) : cut);
  }
  const from = Math.max(0, start - CONTEXT_CHARS);
  const end = start + passage.length;
  return element("p", { class: "text" },
    from > 0 ? "…" : "", text.slice(from, start),
    element("mark", { title: "winning passage" }, passage.slice(0, 2 * SHOWN_CHARS)),
    text.slice(end, end + CONTEXT_CHARS), end + CONTEXT_CHARS < text.length ? "…" : "");
}

function predictedQueries(explanation) {
  const queries = explanation.predicted_queries ?? [];
  if (!queries.length) return null;
  return element("p", { class: "predicted" }, element("span", { class: "unseen" }, "Predicted queries that matched: "),
    queries.map((query) => element("q", {}, query)));
}

/** The terms that the query and the document have in common, the one that gave most first. */
function commonTerms(explanation) {
  const common = explanation.terms ?? [];
  if (!common.length) return null;
  return element("p", { class: "predicted" }, element("span", { class: "unseen" }, "Weighted terms that matched: "),
    common.map(({ term, score }) => element("q", { title: score.toPrecision(3) }, term)));
}

/** What a hit's bars may show: each leg's score, then each stage's. */
function scoresOf(hit, explanation) {
  const legs = explanation.legs ?? {};
  const scores = Object.entries(LEG_NAMES).filter(([leg]) => leg in legs).map(([leg, name]) => ({
    name, kind: "leg", rank: legs[leg].rank, score: legs[leg].score,
  }));
  if (explanation.fused_score !== undefined) scores.push({ name: "fused", kind: "fused", score: explanation.fused_score });
  if (explanation.cascade_score !== undefined) scores.push({ name: "small reranker", kind: "rerank", score: explanation.cascade_score });
  if (explanation.rerank_score !== undefined) scores.push({ name: "reranker", kind: "rerank", score: explanation.rerank_score });
  if (!scores.length && hit._score != null) scores.push({ name: "score", kind: "leg", score: hit._score });
  return scores;
}

/** Lowest and highest score by name, over all hits of the column: bars compare hits, not stages. */
function scalesOf(hits, explanations) {
  const scales = new Map();
  hits.forEach((hit, place) => {
    for (const { name, score } of scoresOf(hit, explanations[place])) {
      const [low, high] = scales.get(name) ?? [score, score];
      scales.set(name, [Math.min(low, score), Math.max(high, score)]);
    }
  });
  return scales;
}

function bars(hit, explanation, scales) {
  const list = element("dl", { class: "scores" });
  for (const { name, kind, rank, score } of scoresOf(hit, explanation)) {
    const [low, high] = scales.get(name);
    const bar = element("span", { class: `bar ${kind}` });
    bar.style.setProperty("--share", String(high > low ? 0.06 + (0.94 * (score - low)) / (high - low) : 1));
    list.append(element("div", {}, element("dt", {}, name),
      element("dd", {}, element("span", { class: "figure" },
        `${rank === undefined ? "" : `#${rank} · `}${score.toPrecision(3)}`), bar)));
  }
  if (explanation.tail) list.append(element("div", {}, element("dt", {}, "beyond the ranking"), element("dd", {}, "the own order")));
  return list;
}

function judgement(docId, rank, { gradeOf, judged, column }) {
  if (!judged) return null;
  const name = `${column}-${rank}`;
  return element("fieldset", { class: "grade" },
    element("legend", { class: "unseen" }, `Your judgement of hit ${rank}`),
    GRADES.map((words, grade) => [
      element("input", {
        type: "radio", name, id: `${name}-${grade}`, value: String(grade), "data-doc": docId,
        checked: gradeOf(docId) === grade,
        // A second click on a grade takes it back.
        click: () => judged(docId, gradeOf(docId) === grade ? undefined : grade),
      }),
      element("label", { for: `${name}-${grade}`, title: words }, String(grade),
        element("span", { class: "unseen" }, ` ${words}`)),
    ]));
}

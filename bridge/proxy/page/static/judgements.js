/**
 * Judgements: how well a document answers a query, 0 (not at all) to 3 (exactly). They stay in this browser until
 * they are exported, one set per index.
 */

import { download, element } from "./dom.js";

const STORE = "neural-bridge judgements";

export const GRADES = ["not relevant", "somewhat", "relevant", "exactly right"];

function all() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) ?? {};
  } catch {
    return {};
  }
}

/** Query → {document id → grade} of one index. */
export const judgementsOf = (index) => all()[index] ?? {};

/** Sets one grade, or takes it back (undefined). */
export function judge(index, query, docId, grade) {
  const kept = all();
  const ofQuery = ((kept[index] ??= {})[query] ??= {});
  if (grade === undefined) delete ofQuery[docId];
  else ofQuery[docId] = grade;
  if (!Object.keys(ofQuery).length) delete kept[index][query];
  localStorage.setItem(STORE, JSON.stringify(kept));
}

/** How many documents of an index were judged. */
export const judgedCount = (index) => rows(judgementsOf(index)).length;

function rows(judgements) {
  return Object.entries(judgements).flatMap(([query, grades], place) =>
    Object.entries(grades).map(([docId, grade]) => ({ queryId: `q${place + 1}`, query, docId, grade })),
  );
}

/** TREC's qrels: query id, 0, document id, grade. */
export const asQrels = (judgements) =>
  rows(judgements).map(({ queryId, docId, grade }) => `${queryId} 0 ${docId} ${grade}\n`).join("");

/** The queries that the qrels speak of, as BEIR keeps them: one JSON object per line. */
export const asQueries = (judgements) =>
  Object.keys(judgements).map((text, place) => `${JSON.stringify({ _id: `q${place + 1}`, text })}\n`).join("");

/** Quepid's ratings: query, docid, rating (RFC 4180). */
export function asQuepid(judgements) {
  const field = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = rows(judgements).map(({ query, docId, grade }) => [query, docId, String(grade)].map(field).join(","));
  return ["query,docid,rating", ...lines, ""].join("\r\n");
}

/** Draws the view; `changed` is called when judgements were cleared. */
export function showJudgements(section, index, changed) {
  const judgements = judgementsOf(index);
  const count = judgedCount(index);
  if (!count) {
    section.replaceChildren(
      element("h2", {}, "Judgements"),
      element("p", {}, `None yet for ${index || "this index"}: give hits a grade from 0 to 3 in Compare.`),
    );
    return;
  }
  const save = (label, name, content, type) =>
    element("button", { type: "button", click: () => download(`${index}-${name}`, content(judgements), type) }, label);
  section.replaceChildren(
    element("h2", {}, `${count} judgements of ${Object.keys(judgements).length} queries on ${index}`),
    element("p", {}, "They are kept in this browser only. Exported, they serve ",
      element("code", {}, "neural-bridge evaluate"), ", ", element("code", {}, "gate"), " and ",
      element("code", {}, "tune"), ", or Quepid."),
    element("p", { class: "buttons" },
      save("TREC qrels", "qrels.txt", asQrels),
      save("Their queries (JSON lines)", "queries.jsonl", asQueries, "application/x-ndjson"),
      save("Quepid CSV", "quepid.csv", asQuepid, "text/csv"),
      element("button", {
        type: "button",
        class: "quiet",
        click: () => {
          if (!confirm(`Forget the ${count} judgements on ${index}?`)) return;
          for (const { query, docId } of rows(judgements)) judge(index, query, docId, undefined);
          changed();
        },
      }, "Forget them"),
    ),
    element("div", { class: "wide" },
      element("table", {},
        element("thead", {}, element("tr", {}, ...["Query", "Document", "Grade"].map((name) => element("th", {}, name)))),
        element("tbody", {}, rows(judgements).map(({ query, docId, grade }) =>
          element("tr", {}, element("td", {}, query), element("td", {}, element("code", {}, docId)),
            element("td", {}, `${grade} · ${GRADES[grade]}`)))),
      ),
    ),
  );
}

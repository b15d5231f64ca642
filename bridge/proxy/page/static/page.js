/** The page: reads what the viewer chose, searches twice, and draws both rankings beside each other. */

import { Refusal, about, profiles, search, signIn } from "./cluster.js";
import { keyOf, ndcg, overlap, ranksOf, readMark, readTimings } from "./comparison.js";
import { element } from "./dom.js";
import { hitCards } from "./hits.js";
import { showStatus } from "./index_status.js";
import { judge, judgedCount, judgementsOf, showJudgements } from "./judgements.js";
import { showMeasurements } from "./measurements.js";
import { asCurl, bodyFor } from "./search_body.js";
import { waterfall } from "./timings.js";

const VIEWS = ["compare", "judgements", "measurements", "index"];
const byId = (id) => document.getElementById(id);
const notice = byId("notice");

/** Index name → profile. */
let known = {};
/** Which comparison is the latest: an older one that is still under way is dropped. */
let latestTurn = 0;
let view = "compare";
const columns = {
  left: { setting: "off", result: null },
  right: { setting: "", result: null },
};

/** Settings that a column may have: value of x-bridge → name. */
const settings = new Map([["off", "plain: your own query"], ["", "bridge: as configured"]]);

const indexName = () => byId("index-name").value.trim();
const queryText = () => byId("query").value.trim();
const profile = () => known[indexName()];

function tell(message, isProblem = false) {
  notice.textContent = message;
  notice.classList.toggle("problem", isProblem);
}

async function guarded(work) {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    if (error.status === 401) byId("sign-in").open = true;
    tell(error.message, true);
    return undefined;
  }
}

/** The header for a setting; it asks for an explanation if there is something to explain. */
const controlOf = (setting) => (setting === "off" ? "off" : [setting, "explain"].filter(Boolean).join(", "));

async function compare() {
  if (!indexName()) return tell("Name an index first.", true);
  let body;
  try {
    const fields = profile()?.text_fields ?? ["*"];
    body = bodyFor(queryText(), byId("body").value, fields, Number(byId("size").value));
  } catch (error) {
    byId("body-details").open = true;
    return tell(`The request body is no JSON: ${error.message}`, true);
  }
  const turn = ++latestTurn;
  tell("Searching…");
  // One after the other: side by side they would share the machine, and neither time would be true.
  for (const column of Object.values(columns)) {
    const control = controlOf(column.setting);
    const result = await guarded(() => search(indexName(), body, control));
    if (turn !== latestTurn) return undefined;
    column.result = result && { ...result, body, control, query: queryText(), index: indexName() };
    if (!result) return draw();
  }
  const [left, right] = [hitsOf(columns.left), hitsOf(columns.right)];
  tell(`${left.length} and ${right.length} hits shown.`);
  return draw();
}

const hitsOf = ({ result }) => result?.answer.hits?.hits ?? [];

function draw() {
  for (const [name, other] of [["left", "right"], ["right", "left"]]) drawColumn(name, columns[other]);
  const { left, right } = columns;
  const summary = byId("summary");
  if (!left.result || !right.result) return summary.replaceChildren();
  const { common, leftOnly, rightOnly } = overlap(hitsOf(left), hitsOf(right));
  summary.replaceChildren(
    element("span", {}, element("b", {}, String(common)), " in both"),
    element("span", {}, element("b", {}, String(leftOnly)), " left only"),
    element("span", {}, element("b", {}, String(rightOnly)), " right only"),
    element("span", { id: "judged-quality" }));
  return drawQuality();
}

function drawQuality() {
  const { left, right } = columns;
  const place = byId("judged-quality");
  if (!place || !left.result) return;
  const grades = judgementsOf(left.result.index)[left.result.query] ?? {};
  const [before, after] = [ndcg(hitsOf(left), grades), ndcg(hitsOf(right), grades)];
  place.replaceChildren(before === undefined ? ""
    : `nDCG@10 by your ${Object.keys(grades).length} judgements: ${before.toFixed(2)} left, ${after.toFixed(2)} right`);
}

function drawColumn(name, other) {
  const column = columns[name];
  const { result } = column;
  const label = name === "left" ? "Left" : "Right";
  const choice = element("select", {
    "aria-label": `${label} ranking`,
    change: ({ target }) => { column.setting = target.value; if (result) compare(); },
  }, [...settings].map(([value, words]) => element("option", { value, selected: value === column.setting }, words)));
  const head = element("div", { class: "head" }, choice);
  if (!result) return byId(name).replaceChildren(head);
  const hits = hitsOf(column);
  head.append(outcome(result), waterfall(readTimings(result.timings)) ?? "");
  const otherExplanations = new Map(hitsOf(other).filter((hit) => hit._bridge).map((hit) => [keyOf(hit), hit._bridge]));
  const cards = hitCards(hits, hits.map(keyOf), {
    column: name,
    otherRanks: ranksOf(hitsOf(other)),
    otherExplanations,
    imageField: known[result.index]?.image?.field,
    textFields: known[result.index]?.text_fields ?? Object.keys(hits[0]?._source ?? {}).slice(0, 2),
    gradeOf: (docId) => judgementsOf(result.index)[result.query]?.[docId],
    judged: result.query && ((docId, grade) => judged(result, docId, grade)),
  });
  return byId(name).replaceChildren(head,
    hits.length ? element("ol", { class: "hits" }, cards) : element("p", { class: "none" }, "No hits."));
}

function outcome({ answer, mark, elapsedMs, index, body, control }) {
  const { done, reason, degraded, repaired, tookMs } = readMark(mark);
  const total = answer.hits?.total;
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(asCurl(index, body, control));
      tell("Copied; set PROXY_URL to the address of applications.");
    } catch {
      tell("The browser lets pages copy only on https or localhost.", true);
    }
  };
  return element("p", { class: "outcome" },
    element("span", { class: "done" }, done === "pass" ? "passed unchanged" : done || "as the cluster answers"),
    reason && !["off", "lexical"].includes(reason) ? element("span", { class: "warning" }, `because of ${reason}`) : "",
    degraded.map((why) => element("span", { class: "warning" }, `without ${why}`)),
    repaired.map(([typed, meant]) => element("span", {}, `“${meant}” for “${typed}”`)),
    element("span", {}, `${(total?.value ?? total ?? 0).toLocaleString("en")}${total?.relation === "gte" ? "+" : ""} matches`),
    element("span", {}, `${(tookMs ?? elapsedMs).toFixed(0)} ms${tookMs === undefined ? " here" : ""}`),
    element("button", { type: "button", class: "quiet", click: copy }, "copy as curl"));
}

function judged({ index, query }, docId, grade) {
  judge(index, query, docId, grade);
  for (const radio of document.querySelectorAll("input[data-doc]")) {
    if (radio.dataset.doc === docId) radio.checked = Number(radio.value) === grade;
  }
  countJudgements();
  drawQuality();
}

const countJudgements = () => { byId("judged-count").textContent = judgedCount(indexName()) || ""; };

/** Shows the view that the address names; its links are ordinary ones, so back and forth work. */
function show() {
  const wanted = location.hash.slice(1);
  if (VIEWS.includes(wanted)) view = wanted;
  for (const name of VIEWS) byId(name).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view === "judgements") showJudgements(byId(view), indexName(), () => { countJudgements(); show(); draw(); });
  if (view === "measurements") showMeasurements(byId(view), indexName(), profile());
  if (view === "index") showStatus(byId(view), indexName(), profile());
}

/** Reads which indices there are, and the profile of the one that is named: it may be an alias. */
async function readProfiles() {
  known = (await guarded(() => profiles())) ?? known;
  byId("index-names").replaceChildren(...Object.keys(known).sort().map((value) => element("option", { value })));
  if (!indexName()) byId("index-name").value = Object.keys(known).sort()[0] ?? "";
  await indexChosen();
}

async function indexChosen() {
  const name = indexName();
  if (name && !known[name]) {
    const [found] = Object.values((await guarded(() => profiles(name))) ?? {});
    if (found) known[name] = found;
  }
  countJudgements();
  show();
}

byId("query-form").addEventListener("submit", (event) => { event.preventDefault(); compare(); });
byId("index-name").addEventListener("change", indexChosen);
byId("credentials").addEventListener("submit", async (event) => {
  event.preventDefault();
  const credentials = new FormData(event.target);
  signIn(credentials.get("user"), credentials.get("password"));
  byId("viewer").textContent = credentials.get("user") || "Not signed in";
  byId("sign-in").open = false;
  tell("");
  await readProfiles();
});
addEventListener("hashchange", () => {
  // What the last search found is no news on another view.
  if (!notice.classList.contains("problem")) tell("");
  show();
});

show();
draw();
await guarded(async () => {
  const { version, mode, stages } = await about();
  byId("version").textContent = `${version}${mode === "shadow" ? ", shadow mode" : ""}`;
  for (const stage of stages) if (stage !== "lexical") settings.set(stage, `bridge: ${stage}`);
  draw();
});
await readProfiles();

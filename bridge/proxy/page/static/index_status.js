/** What is known of an index: its profile, how many of its documents are enriched, and which stages serve it. */

import { element } from "./dom.js";
import { search } from "./cluster.js";

/** Where a generation keeps its stamps: the first in our object, later ones in an object of their own within it. */
const stampField = ({ object_field: field, generation }) =>
  (generation === 1 ? `${field}.stamp` : `${field}.generation_${generation}.stamp`);

/** Documents, and those with a stamp of the profile's generation, counted in the viewer's name. */
export async function coverage(index, profile) {
  const stamped = { exists: { field: stampField(profile) } };
  const [documents, enriched] = await Promise.all([count(index, { match_all: {} }), count(profile.stamped_in, stamped)]);
  return { documents, enriched };
}

async function count(index, query) {
  const { answer } = await search(index, JSON.stringify({ size: 0, track_total_hits: true, query }), "off");
  const { hits: { total } } = answer;
  return total.value ?? total;
}

/** Draws the view; a profile that is missing says so. */
export function showStatus(section, index, profile) {
  if (!profile) {
    section.replaceChildren(element("h2", {}, index || "No index"),
      element("p", {}, "No profile of the bridge can be read here: searches pass unchanged. ",
        element("code", {}, `neural-bridge plan ${index || "INDEX"}`), " says what enriching it takes."));
    return;
  }
  const { beside } = profile;
  section.replaceChildren(
    element("h2", {}, index),
    covered(index, profile, `neural-bridge backfill ${index}`),
    stages(profile),
    beside ? element("section", {},
      element("h3", {}, `Generation ${beside.generation} is made beside it: ${beside.encoder.name}`),
      covered(index, beside, "the serving generation finds them until then.")) : "",
    facts(index, profile));
}

/** A paragraph that fills itself with how many documents carry a stamp; `remedy` is for the others. */
function covered(index, profile, remedy) {
  const place = element("p", { class: "coverage" }, "Counting…");
  coverage(index, profile).then(({ documents, enriched }) => {
    const share = documents ? (100 * enriched) / documents : 0;
    place.replaceChildren(
      element("label", {}, element("meter", { min: "0", max: String(Math.max(documents, 1)), value: String(enriched) }),
        ` ${enriched.toLocaleString("en")} of ${documents.toLocaleString("en")} documents carry a stamp of generation ` +
        `${profile.generation} (${share.toFixed(1)} %).`),
      enriched < documents ? element("span", { class: "warning" }, ` The others lack it: ${remedy}`) : "");
  }, (error) => place.replaceChildren(element("span", { class: "problem" }, error.message)));
  return place;
}

function stages({ stages: serving, gate }) {
  const verdicts = new Map((gate?.verdicts ?? []).map((verdict) => [verdict.stage, verdict]));
  const names = [...new Set([...serving, ...verdicts.keys()])];
  return element("p", {}, "Stages: ", names.map((name) => {
    const serves = serving.includes(name);
    const forced = verdicts.get(name)?.forced;
    return element("span", { class: serves ? "stage on" : "stage off" },
      `${serves ? "✓" : "✗"} ${name}${forced ? " (forced)" : ""}`,
      element("span", { class: "unseen" }, serves ? " serves" : " held back"));
  }), gate ? judgedBy(gate) : element("span", { class: "warning" }, " No verdict of the gate: these stages were never measured here."));
}

function judgedBy({ measurement }) {
  if (!measurement) return " by the operator's word, without a measurement.";
  const { measure, queries, judgements, measured_at: at } = measurement;
  return ` by the gate: ${measure} over ${queries} queries of ${judgements}, ${at.slice(0, 10)}.`;
}

/** Which searches are left as they are. */
function leftAlone({ leave_quoted: quoted, leave_identifiers: identifiers, scripts, confident_lead: lead }) {
  return [
    quoted ? "words in quotation marks" : "", identifiers ? "part numbers" : "",
    scripts?.length ? `scripts other than ${scripts.join(", ")}` : "",
    lead ? `and ranked by words alone: a first hit that scores ${lead} times the second` : "",
  ].filter(Boolean).join("; ") || "none for their words";
}

function facts(index, profile) {
  const model = (reference) => (reference ? `${reference.name} @ ${reference.digest}` : "none");
  const { passages, fusion, rerank } = profile;
  const weights = Object.entries(fusion.weights).map(([leg, weight]) => `${leg} ${weight}`).join(", ");
  const rows = [
    ["Enriched", profile.stamped_in === index ? "in place" : `beside, in ${profile.stamped_in}`],
    ["Generation", String(profile.generation)],
    ["Text fields", profile.text_fields.join(", ")],
    ["Encoder", `${model(profile.encoder)}, ${profile.dimension} dimensions`],
    ["Query generator", model(profile.generator)],
    ["Vectors", profile.vector_type],
    ["Sparse encoder", model(profile.sparse?.encoder)],
    ["Image encoder", model(profile.image?.encoder)],
    ["Passages", `${passages.layout}, ${passages.max_tokens} tokens, ${passages.overlap_tokens} shared`],
    ["Fusion", `${fusion.method}${fusion.method === "rrf" ? ` (k ${fusion.k})` : ""}: ${weights}`],
    ["Weight of predicted queries", String(profile.expansion_boost)],
    ["Window", `${profile.window} documents`],
    ["Searches left alone", leftAlone(profile.rules ?? {})],
    ["Reranking", `${rerank.model}, the first ${rerank.depth}, blended with ${rerank.blend} of the fused score`],
    ["Cascade", `${rerank.cascade.candidates} candidates, the best ${rerank.cascade.depth} read by ${rerank.model}`],
  ];
  return element("dl", { class: "facts" },
    rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

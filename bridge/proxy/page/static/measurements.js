/** What was measured on an index: the evidence in its profile, and files of `neural-bridge evaluate --json`. */

import { element } from "./dom.js";
import { intervals, qualityAgainstTime } from "./charts.js";

const figure = (value, digits = 3) => (typeof value === "number" ? value.toFixed(digits) : "–");

function table(caption, head, rows) {
  return element("div", { class: "wide" }, element("table", {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, head.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, rows.map(([first, ...cells]) =>
      element("tr", {}, element("th", { scope: "row" }, first), cells.map((cell) => element("td", {}, cell)))))));
}

function basis(measurement) {
  if (!measurement) return element("p", {}, "No measurement stands behind it: the operator decided.");
  const { measure, queries, judgements, measured_at: at } = measurement;
  return element("p", {}, `${measure} over ${queries} queries of ${judgements}, measured ${at.replace("T", " ")}`);
}

/** The gate's verdict on each stage. */
export function gateEvidence({ verdicts, tolerance, measurement }) {
  const measured = verdicts.filter(({ mean }) => typeof mean === "number");
  const compared = verdicts.filter(({ difference }) => typeof difference === "number");
  const timed = measured.filter(({ p95_ms: ms }) => typeof ms === "number");
  return element("section", {},
    element("h2", {}, "Do-no-harm gate"),
    basis(measurement),
    element("div", { class: "plots" },
      compared.length ? intervals(`Difference of ${measurement?.measure ?? "the measure"} to the stage before`,
        compared.map(({ stage, difference, low, high, enabled }) =>
          ({ name: stage, mean: difference, low: low ?? difference, high: high ?? difference, muted: !enabled })),
        { zero: 0 }) : null,
      timed.length > 1 ? qualityAgainstTime(`${measurement?.measure ?? "Quality"} against time`,
        timed.map(({ stage, mean, p95_ms: ms, enabled }) => ({ name: stage, ms, mean, muted: !enabled }))) : null),
    table(`Verdicts; harm up to ${tolerance} is tolerated`,
      ["stage", "verdict", "mean", "difference [95 %]", "p50 ms", "p95 ms"],
      verdicts.map(({ stage, enabled, mean, against, difference, low, high, p50_ms: p50, p95_ms: p95, forced, undecided }) => [
        stage,
        `${enabled ? "serves" : "held back"}${forced ? `, forced: ${forced}` : ""}${undecided ? `, as before: ${undecided}` : ""}`,
        figure(mean),
        typeof difference === "number" ? `${figure(difference)} [${figure(low)}, ${figure(high)}] to ${against}` : "–",
        figure(p50, 0), figure(p95, 0),
      ])));
}

/** Where the tuned settings come from. */
export function tuningEvidence(tuning) {
  const { measurement, folds, budget_p95_ms: budget, default_mean: before, tuned_mean: after, low, high, front } = tuning;
  return element("section", {},
    element("h2", {}, "Tuning"),
    basis(measurement),
    element("p", {}, `Held out in ${folds} folds: ${figure(before)} before, ${figure(after)} tuned; difference ` +
      `${figure(after - before)} [${figure(low)}, ${figure(high)}]` +
      `${budget == null ? "" : `, within ${budget} ms at p95`}.`),
    front.length ? qualityAgainstTime(`${measurement.measure} against time: the best settings, and the ones before (dashed)`,
      front.map(({ setting, p95_ms: ms, mean }) => ({ name: setting, label: setting.split(",")[0], ms, mean })),
      { before }) : null,
    table("The front of quality against time", ["setting", measurement.measure, "p95 ms"],
      front.map(({ setting, mean, p95_ms: ms }) => [setting, figure(mean), figure(ms, 0)])));
}

/** One object of `neural-bridge evaluate --json`. Throws a TypeError where it is something else. */
export function evaluation(result) {
  const stages = Object.entries(result?.stages ?? {});
  const measures = [...new Set(stages.flatMap(([, figures]) => Object.keys(figures)))].filter((name) => name.includes("@"));
  if (!stages.length || !measures.length) throw new TypeError("expected the output of `neural-bridge evaluate --json`");
  const [first] = measures;
  const timed = stages.filter(([, { p95_ms: ms }]) => typeof ms === "number");
  return element("section", {},
    element("h2", {}, `${result.collection}: ${result.queries} queries, ${result.documents} documents`),
    element("div", { class: "plots" },
      intervals(first, stages.map(([name, figures]) => ({ name, mean: figures[first] }))),
      timed.length > 1 ? qualityAgainstTime(`${first} against time`,
        timed.map(([name, figures]) => ({ name, ms: figures.p95_ms, mean: figures[first] }))) : null),
    table("Stages", ["stage", ...measures, "p50 ms", "p95 ms"],
      stages.map(([name, figures]) =>
        [name, ...measures.map((measure) => figure(figures[measure])), figure(figures.p50_ms, 0), figure(figures.p95_ms, 0)])));
}

/** Draws the view of one index. */
export function showMeasurements(section, index, profile) {
  const loaded = element("div", {});
  const problem = element("p", { class: "problem", role: "alert" });
  const open = async ({ target }) => {
    problem.textContent = "";
    for (const file of target.files) {
      try {
        loaded.prepend(evaluation(JSON.parse(await file.text())));
      } catch (error) {
        problem.textContent = `${file.name} cannot be shown: ${error.message}`;
      }
    }
  };
  section.replaceChildren(
    profile?.gate ? gateEvidence(profile.gate) : "",
    profile?.tuning ? tuningEvidence(profile.tuning) : "",
    profile?.gate || profile?.tuning ? "" : element("section", {},
      element("h2", {}, "Measurements"),
      element("p", {}, `Nothing measured is kept with ${index || "this index"}. `,
        element("code", {}, `neural-bridge gate --index ${index || "INDEX"}`), " measures which stages do it good.")),
    element("section", {},
      element("label", { class: "file" }, "Show a file of ", element("code", {}, "neural-bridge evaluate --json"), " ",
        element("input", { type: "file", accept: ".json,application/json", multiple: true, change: open })),
      problem, loaded));
}

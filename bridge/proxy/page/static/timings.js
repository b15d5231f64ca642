/** How long each stage took, as a waterfall. */

import { element } from "./dom.js";

const NAMES = {
  embed: "embed the query", weigh: "weigh the query's terms", legs: "search the legs", fuse: "fuse",
  texts: "fetch texts", rerank: "rerank", show: "fetch hits",
};
/** Stages that begin together, before all others. */
const FIRST = new Set(["embed", "weigh"]);

/** `timings`: [{stage, ms}] in the order of the stages, which follow one another except for the first. */
export function waterfall(timings) {
  if (!timings.length) return null;
  let passed = 0;
  const spans = timings.map(({ stage, ms }) => {
    const from = FIRST.has(stage) ? 0 : passed;
    passed = Math.max(passed, from + ms);
    return { stage, from, ms };
  });
  const total = passed || 1;
  const rows = spans.map(({ stage, from, ms }) => {
    const bar = element("span", { class: "span" });
    bar.style.setProperty("--from", String(from / total));
    bar.style.setProperty("--share", String(ms / total));
    return element("div", {}, element("dt", {}, NAMES[stage] ?? stage),
      element("dd", {}, bar, element("span", { class: "figure" }, `${ms.toFixed(ms < 10 ? 1 : 0)} ms`)));
  });
  return element("details", { class: "timings", open: matchMedia("(min-width: 60rem)").matches },
    element("summary", {}, `${total.toFixed(0)} ms in ${timings.length} stages`), element("dl", {}, rows));
}

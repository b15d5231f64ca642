/** How long each stage took, one after the other, as a waterfall. */

import { element } from "./dom.js";

const NAMES = {
  embed: "embed the query", legs: "search the legs", fuse: "fuse", texts: "fetch texts", rerank: "rerank",
  show: "fetch hits",
};

/** `timings`: [{stage, ms}] in the order of the stages, which follow one another. */
export function waterfall(timings) {
  if (!timings.length) return null;
  const total = timings.reduce((sum, { ms }) => sum + ms, 0) || 1;
  let passed = 0;
  const rows = timings.map(({ stage, ms }) => {
    const bar = element("span", { class: "span" });
    bar.style.setProperty("--from", String(passed / total));
    bar.style.setProperty("--share", String(ms / total));
    passed += ms;
    return element("div", {}, element("dt", {}, NAMES[stage] ?? stage),
      element("dd", {}, bar, element("span", { class: "figure" }, `${ms.toFixed(ms < 10 ? 1 : 0)} ms`)));
  });
  return element("details", { class: "timings", open: matchMedia("(min-width: 60rem)").matches },
    element("summary", {}, `${total.toFixed(0)} ms in ${timings.length} stages`), element("dl", {}, rows));
}

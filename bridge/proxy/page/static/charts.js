/** Two plots as inline SVG: means with intervals by name, and quality against time. */

import { element, shape } from "./dom.js";

const WIDTH = 560;
const LABELS = 110;

/** Round values that span `low`…`high`. */
function ticks(low, high, wanted = 5) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, place) =>
    Number(((first + place) * step).toPrecision(12)));
}

function figure(title, height, ...content) {
  return element("figure", {}, element("figcaption", {}, title),
    shape("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `${title}; the table has the figures` },
      ...content));
}

/** `rows`: [{name, mean, low?, high?, muted?}]; a vertical line stands at `zero` if there is one. */
export function intervals(title, rows, { zero } = {}) {
  const values = rows.flatMap(({ mean, low = mean, high = mean }) => [low, mean, high]).concat(zero ?? []);
  const pad = (Math.max(...values) - Math.min(...values)) * 0.08 || 0.05;
  const [from, to] = [Math.min(...values) - pad, Math.max(...values) + pad];
  const x = (value) => LABELS + ((value - from) / (to - from)) * (WIDTH - LABELS - 20);
  const height = rows.length * 26 + 34;
  return figure(title, height,
    ticks(from, to).map((value) => [
      shape("line", { class: "grid", x1: x(value), x2: x(value), y1: 4, y2: height - 26 }),
      shape("text", { class: "tick", x: x(value), y: height - 10, "text-anchor": "middle" }, String(value)),
    ]),
    zero === undefined ? null
      : shape("line", { class: "zero", x1: x(zero), x2: x(zero), y1: 4, y2: height - 26 }),
    rows.map(({ name, mean, low, high, muted }, place) => {
      const y = place * 26 + 17;
      return shape("g", { class: muted ? "muted" : null },
        shape("text", { x: LABELS - 12, y: y + 4, "text-anchor": "end" }, name),
        low === undefined ? null : shape("line", { class: "interval", x1: x(low), x2: x(high), y1: y, y2: y }),
        shape("circle", { class: "dot", cx: x(mean), cy: y, r: 5 }));
    }));
}

/**
 * `points`: [{name, ms, mean, label?, muted?}], fast to the left, good at the top; `label` stands beside the point, the
 * name where there is none. A horizontal line stands at `before` if there is one.
 */
export function qualityAgainstTime(title, points, { before } = {}) {
  const height = 260;
  const slowest = Math.max(...points.map(({ ms }) => ms)) * 1.15;
  const means = points.map(({ mean }) => mean).concat(before ?? []);
  const pad = (Math.max(...means) - Math.min(...means)) * 0.15 || 0.02;
  const [from, to] = [Math.min(...means) - pad, Math.max(...means) + pad];
  const x = (ms) => 60 + (ms / slowest) * (WIDTH - 80);
  const y = (mean) => height - 40 - ((mean - from) / (to - from)) * (height - 60);
  return figure(title, height,
    ticks(0, slowest).map((ms) => [
      shape("line", { class: "grid", x1: x(ms), x2: x(ms), y1: 10, y2: height - 40 }),
      shape("text", { class: "tick", x: x(ms), y: height - 24, "text-anchor": "middle" }, String(ms)),
    ]),
    ticks(from, to, 4).map((mean) => [
      shape("line", { class: "grid", x1: 60, x2: WIDTH - 20, y1: y(mean), y2: y(mean) }),
      shape("text", { class: "tick", x: 54, y: y(mean) + 4, "text-anchor": "end" }, String(mean)),
    ]),
    shape("text", { class: "tick", x: WIDTH - 20, y: height - 6, "text-anchor": "end" }, "p95, ms"),
    before === undefined ? null
      : shape("line", { class: "zero", x1: 60, x2: WIDTH - 20, y1: y(before), y2: y(before) }),
    points.map(({ name, label = name, ms, mean, muted }) => shape("g", { class: muted ? "muted" : null },
      shape("title", {}, `${name}: ${mean.toFixed(3)} in ${ms.toFixed(0)} ms`),
      shape("circle", { class: "dot", cx: x(ms), cy: y(mean), r: 5 }),
      points.length > 12 ? null
        : shape("text", { x: x(ms) + (x(ms) > WIDTH * 0.7 ? -9 : 9), y: y(mean) - 8,
          "text-anchor": x(ms) > WIDTH * 0.7 ? "end" : "start" }, label))));
}

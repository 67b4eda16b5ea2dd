// Small charts as SVG: curves, and estimates with their intervals.
import { el, fixed, svg } from "./api.js";

const WIDTH = 420, HEIGHT = 170, LEFT = 44, BOTTOM = 24, TOP = 8, RIGHT = 10;
const COLOURS = 6;

const niceStep = (span) => {
  const rough = span / 4 || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((one) => one * power >= rough);
};

function ticks(low, high) {
  const step = niceStep(high - low);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

export function lineChart({ title, x, lines }) {
  const points = lines.flatMap((line) => line.points);
  const xs = points.map(([at]) => at), ys = points.map(([, at]) => at);
  let [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  if (y0 === y1) [y0, y1] = [y0 - 0.5, y1 + 0.5];
  const px = (at) => LEFT + ((at - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const py = (at) => TOP + (1 - (at - y0) / (y1 - y0)) * (HEIGHT - TOP - BOTTOM);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": `${title}: ${lines.length} curves, ${fixed(y0)} to ${fixed(y1)}` });
  for (const at of ticks(y0, y1))
    drawing.append(
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: py(at), y2: py(at), class: "grid" }),
      svg("text", { x: LEFT - 8, y: py(at) + 4, class: "tick", "text-anchor": "end" }, fixed(at, y1 - y0 < 0.05 ? 3 : y1 - y0 < 5 ? 2 : 0)),
    );
  for (const at of ticks(x0, x1).filter(Number.isInteger))
    drawing.append(svg("text", { x: px(at), y: HEIGHT - 6, class: "tick", "text-anchor": "middle" }, String(at)));
  lines.forEach((line, number) => {
    const path = line.points.map(([a, b], place) => `${place ? "L" : "M"}${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("");
    const [a, b] = line.points.at(-1);
    drawing.append(
      svg("path", { d: path, class: `line c${number % COLOURS}` }),
      svg("circle", { cx: px(a), cy: py(b), r: 3, class: `end c${number % COLOURS}` }),
    );
  });
  const legend = el("ul", { class: "legend" }, ...lines.map((line, number) => el("li", { class: `k${number % COLOURS}` }, line.name)));
  return el("figure", {}, el("h3", {}, title), drawing, legend, el("figcaption", { class: "note" }, `by ${x}`));
}

// One row of an interval plot; all rows share `low` to `high`.
export function interval({ value, low, high }, [from, to]) {
  const at = (number) => `${(100 * (number - from)) / (to - from || 1)}%`;
  const bar = el("span", { class: "bar" }), dot = el("span", { class: "dot" });
  bar.style.left = at(low);
  bar.style.width = `${(100 * (high - low)) / (to - from || 1)}%`;
  dot.style.left = at(value);
  return el("span", { class: "interval", "aria-hidden": "true" }, bar, dot);
}

export function span(rows) {
  const low = Math.min(...rows.map((row) => row.low)), high = Math.max(...rows.map((row) => row.high));
  const room = 0.04 * (high - low || 1);
  return [low - room, high + room];
}

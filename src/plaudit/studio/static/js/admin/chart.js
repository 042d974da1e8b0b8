/**
 * Line charts in SVG: live, read by pointer or arrow keys, and as a table.
 *
 *     const made = chart({ title, x: "step", series: [{ name, points: [[1, 0.5], ...] }] });
 *     main.append(made.element);   made.update(series);
 *
 * A series may stand on an axis of its own at the right. Series differ by colour and by dashes.
 */

import { h, put, s } from "../h.js";
import { t } from "../i18n.js";
import { short, table } from "./parts.js";

/** @typedef {[number, number]} Point */
/** @typedef {{name: string, points: Point[], right?: boolean}} Series */
/** @typedef {{title: string, x: string, note?: string, series: Series[], dots?: boolean}} Plan */
/** @typedef {{low: number, high: number, ticks: number[]}} Scale */

const HEIGHT = 230;
const EDGE = { top: 12, bottom: 30, left: 52, right: 14 };
const MOST_ROWS = 200;

/**
 * A range with round ticks around values.
 * @param {number[]} values
 * @param {number} wanted ticks
 * @param {boolean} [whole]
 * @returns {Scale}
 */
export function scale(values, wanted, whole = false) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (!values.length) [low, high] = [0, 1];
  if (low === high) {
    const room = Math.abs(low) / 10 || 0.5;
    [low, high] = whole ? [low - 1, high + 1] : [low - room, high + room];
  }
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= rough * 0.8) ?? rough;
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) {
    ticks.push(Number((k * step).toPrecision(12)));
  }
  return { low, high, ticks };
}

/**
 * @param {Plan} plan
 * @returns {{element: HTMLElement, update: (series: Series[]) => void, stop: () => void}}
 */
export function chart(plan) {
  let series = plan.series;
  let at = -1; // the place among `xs` that is read
  /** @type {number[]} */
  let xs = [];
  const svg = s("svg", { height: HEIGHT, "aria-hidden": "true" });
  const legend = h("div", { class: "legend small" });
  const reader = h("div", { class: "reader", tabindex: "0", role: "slider", "aria-label": plan.title,
    onkeydown: onKey, onpointermove: onPoint, onpointerdown: onPoint,
    onpointerleave: () => read(-1), onblur: () => read(-1) }, svg);
  const values = h("details", { class: "values small", ontoggle: fillTable },
    h("summary", {}, t("chart.table")));
  const element = h("figure", { class: "card chart" },
    h("figcaption", {}, h("h3", {}, plan.title), plan.note ? h("p", { class: "soft small" }, plan.note) : null),
    legend, reader, values);
  const watcher = new ResizeObserver(() => draw());
  watcher.observe(reader);

  /** @returns {{width: number, x: Scale, left: Scale, right: Scale | null, end: number}} */
  function frame() {
    const width = Math.max(reader.clientWidth, 200);
    const ys = (/** @type {boolean} */ right) =>
      series.filter((one) => Boolean(one.right) === right).flatMap((one) => one.points.map((p) => p[1]));
    const right = series.some((one) => one.right) ? scale(ys(true), 4) : null;
    const end = width - (right ? EDGE.left : EDGE.right);
    return { width, x: scale(xs, Math.max(2, width / 110), xs.every(Number.isInteger)),
      left: scale(ys(false), 4), right, end };
  }

  /** @param {Scale} one @param {number} value @param {number} from @param {number} to */
  const place = (one, value, from, to) => from + ((value - one.low) / (one.high - one.low)) * (to - from);

  function draw() {
    xs = [...new Set(series.flatMap((one) => one.points.map((p) => p[0])))].sort((a, b) => a - b);
    const { width, x, left, right, end } = frame();
    const px = (/** @type {number} */ value) => place(x, value, EDGE.left, end);
    const py = (/** @type {number} */ value, /** @type {boolean} */ onRight) =>
      place(onRight && right ? right : left, value, HEIGHT - EDGE.bottom, EDGE.top);
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute("width", String(width));
    put(
      svg,
      left.ticks.map((tick) => [
        s("line", { class: "grid", x1: EDGE.left, x2: end, y1: py(tick, false), y2: py(tick, false) }),
        s("text", { x: EDGE.left - 8, y: py(tick, false) + 4, "text-anchor": "end" }, short(tick)),
      ]),
      right && right.ticks.map((tick) =>
        s("text", { x: end + 8, y: py(tick, true) + 4, class: "right" }, short(tick))),
      x.ticks.map((tick) =>
        s("text", { x: px(tick), y: HEIGHT - 12, "text-anchor": "middle" }, short(tick))),
      s("text", { x: end, y: HEIGHT - 1, "text-anchor": "end", class: "axis" }, plan.x),
      series.map((one, k) => {
        const line = one.points.map(([a, b]) => `${px(a).toFixed(1)},${py(b, Boolean(one.right)).toFixed(1)}`);
        const few = plan.dots || one.points.length < 40;
        return [
          s("polyline", { class: `line s${(k % 4) + 1}`, points: line.join(" ") }),
          few && one.points.map(([a, b]) =>
            s("circle", { class: `dot s${(k % 4) + 1}`, cx: px(a), cy: py(b, Boolean(one.right)), r: 2.5 })),
        ];
      }),
      at >= 0 && s("line", { class: "cross", x1: px(xs[at] ?? 0), x2: px(xs[at] ?? 0), y1: EDGE.top,
        y2: HEIGHT - EDGE.bottom }),
    );
    sayWhere();
    if (values.open) fillTable();
  }

  /** The nearest value of a series at a place. @param {Series} one @param {number} x */
  function valueAt(one, x) {
    let best = null;
    for (const point of one.points) {
      if (!best || Math.abs(point[0] - x) <= Math.abs(best[0] - x)) best = point;
    }
    return best && best[0] === x ? best[1] : null;
  }

  function sayWhere() {
    const x = xs[at < 0 ? xs.length - 1 : at];
    const parts = series.map((one) => ({ name: one.name, value: x === undefined ? null : valueAt(one, x) }));
    put(legend, h("span", { class: "soft" }, x === undefined ? t("chart.nothing") : `${plan.x} ${short(x)}`),
      parts.map((part, k) => h("span", { class: "key" },
        s("svg", { width: 22, height: 8, "aria-hidden": "true" },
          s("line", { class: `line s${(k % 4) + 1}`, x1: 0, x2: 22, y1: 4, y2: 4 })),
        part.name, h("strong", {}, short(part.value)))));
    reader.setAttribute("aria-valuemin", "0");
    reader.setAttribute("aria-valuemax", String(Math.max(xs.length - 1, 0)));
    reader.setAttribute("aria-valuenow", String(at < 0 ? Math.max(xs.length - 1, 0) : at));
    reader.setAttribute("aria-valuetext", x === undefined ? t("chart.nothing")
      : `${plan.x} ${short(x)}: ${parts.map((part) => `${part.name} ${short(part.value)}`).join(", ")}`);
  }

  /** @param {number} next */
  function read(next) {
    if (next === at) return;
    at = next;
    draw();
  }

  /** @param {Event} event */
  function onKey(event) {
    if (!(event instanceof KeyboardEvent) || event.ctrlKey || event.metaKey || event.altKey) return;
    const last = xs.length - 1;
    const now = at < 0 ? last : at;
    const page = Math.max(1, Math.round(xs.length / 10));
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last, PageUp: now + page,
      PageDown: now - page }[event.key];
    if (next === undefined || last < 0) return;
    event.preventDefault();
    read(Math.min(Math.max(next, 0), last));
  }

  /** @param {Event} event */
  function onPoint(event) {
    if (!(event instanceof PointerEvent) || !xs.length) return;
    const { x, end } = frame();
    const inside = event.clientX - reader.getBoundingClientRect().left;
    const value = x.low + ((inside - EDGE.left) / (end - EDGE.left)) * (x.high - x.low);
    let best = 0;
    xs.forEach((one, k) => {
      if (Math.abs(one - value) < Math.abs((xs[best] ?? 0) - value)) best = k;
    });
    read(best);
  }

  function fillTable() {
    if (!values.open) return;
    const every = Math.max(1, Math.ceil(xs.length / MOST_ROWS));
    const shown = xs.filter((_, k) => k % every === 0 || k === xs.length - 1);
    const maps = series.map((one) => new Map(one.points));
    const rows = shown.map((x) => [short(x), ...maps.map((map) => short(map.get(x)))]);
    values.lastElementChild?.classList.contains("scroller") && values.lastElementChild.remove();
    values.append(table(plan.title, [plan.x, ...series.map((one) => `#${one.name}`)], rows, true));
  }

  return {
    element,
    update(next) {
      series = next;
      if (at >= 0) at = Math.min(at, xs.length - 1);
      draw();
    },
    stop: () => watcher.disconnect(),
  };
}

/**
 * The few drawings of the pages, in the colour of the text around them.
 */

import { s } from "./h.js";

/** @type {Record<string, string>} */
const PATHS = {
  sun: "M12 3v2m0 14v2M3 12h2m14 0h2M5.6 5.6 7 7m10 10 1.4 1.4M18.4 5.6 17 7M7 17l-1.4 1.4M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8Z",
  moon: "M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.5 10.5Z",
  half: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16Zm0 0v16m3-14.5v13m3-10v7",
  leave: "M14 4H6v16h8m-3-8h10m0 0-3.5-3.5M21 12l-3.5 3.5",
  done: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Zm-4 9.2 2.8 2.8L16 9.6",
  wait: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18Zm0 4.5V12l3 2",
  cut: "M4 4l16 16M8.5 15.5a5 5 0 0 1 6-.8M5 12a10 10 0 0 1 4-2.4m4.5-.4A10 10 0 0 1 19 12M2 8.5A15 15 0 0 1 6 6m5-1.4A15 15 0 0 1 22 8.5M12 19h.01",
  close: "M6 6l12 12M18 6 6 18",
};

/**
 * @param {string} name one of PATHS
 * @returns {SVGElement}
 */
export function icon(name) {
  return s(
    "svg",
    { viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": 1.7,
      "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" },
    s("path", { d: PATHS[name] ?? "" }),
  );
}

/**
 * The mark of Plaudit: two answers, one a little ahead.
 * @param {string} [size] a class
 * @returns {SVGElement}
 */
export function mark(size = "") {
  return s(
    "svg",
    { viewBox: "0 0 32 32", class: size, fill: "currentColor", "aria-hidden": "true" },
    s("rect", { x: 3, y: 9, width: 12, height: 18, rx: 4, opacity: 0.45 }),
    s("rect", { x: 17, y: 5, width: 12, height: 22, rx: 4 }),
  );
}

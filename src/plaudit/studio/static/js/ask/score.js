/**
 * How good one answer is: keys 1–7, or a slider for what lies between. Kept as a number in [0, 1].
 */

import { h, put } from "../h.js";
import { number, t } from "../i18n.js";
import { answerCard, answers } from "./parts.js";

const STEPS = 7;

/**
 * @param {import("./parts.js").Desk} desk
 * @returns {import("./parts.js").View}
 */
export function score(desk) {
  const { offer, keys, state } = desk;
  const parts = offer.segments.slice(0, 1).map((segment) => answerCard(segment, 0, 1));
  const give = (/** @type {number} */ value, /** @type {string} */ said) =>
    desk.vote("score", { segment: 0, score: value }, said);
  const step = (/** @type {number} */ n) => give((n - 1) / (STEPS - 1), t("score.give", { n }));
  const note = (/** @type {number} */ n) =>
    n === 1 ? t("score.low") : n === STEPS ? t("score.high") : "";
  const button = (/** @type {number} */ n) =>
    h("button", { class: "number", type: "button", onclick: () => step(n), "aria-label": t("score.give", { n }),
      "aria-keyshortcuts": keys.letters ? String(n) : null },
      h("span", {}, n), note(n) && h("small", {}, note(n)));

  return {
    body: answers(parts.map((part) => part.card)),
    choices: h("div", {},
      h("div", { class: "choices seven" }, Array.from({ length: STEPS }, (_, i) => button(i + 1))),
      slider(state, (value) => give(value, t("score.save", { score: decimals(value) })))),
    clips: parts.flatMap((part) => part.clip ?? []),
    digit: (digit) => {
      if (digit > STEPS) return false;
      step(digit);
      return true;
    },
  };
}

/**
 * @param {Record<string, any>} state
 * @param {(value: number) => void} give
 * @returns {HTMLElement}
 */
function slider(state, give) {
  const save = h("button", { type: "button", onclick: () => give(range.valueAsNumber) });
  const range = h("input", { type: "range", min: "0", max: "1", step: "0.01", id: "slider",
    "aria-label": t("score.slider") });
  range.value = String(state.score ?? 0.5);
  const show = () => {
    state.score = range.valueAsNumber;
    range.setAttribute("aria-valuetext", decimals(range.valueAsNumber));
    put(save, t("score.save", { score: decimals(range.valueAsNumber) }));
  };
  range.addEventListener("input", show);
  range.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || event.repeat) return;
    event.preventDefault();
    give(range.valueAsNumber);
  });
  show();
  return h("div", { class: "scale" }, range, save);
}

/**
 * @param {number} value
 * @returns {string}
 */
function decimals(value) {
  return number(value, { minimumFractionDigits: 2, maximumFractionDigits: 2 });
}

/**
 * Which of two answers is better: one key, one vote, and on. Where the admin asks for strength, the side
 * comes first and 1–9 after it; the side's key again leaves the strength out.
 */

import { differences } from "../diff.js";
import { h, put } from "../h.js";
import { t } from "../i18n.js";
import { tell } from "../frame.js";
import { marked } from "../text.js";
import { answerCard, answers, keyButton, letter } from "./parts.js";

const SIDES = /** @type {const} */ (["first", "second"]);

/**
 * @param {import("./parts.js").Desk} desk
 * @returns {import("./parts.js").View}
 */
export function compare(desk) {
  const { offer, keys, state } = desk;
  const parts = offer.segments.map((segment, i) => answerCard(segment, i, 2));
  const clips = parts.flatMap((part) => part.clip ?? []);

  const say = (/** @type {string} */ preference, /** @type {number} */ strength = 0) => {
    if (!clips.every((one) => one.wasSeen())) return tell(t("compare.watch"), "warn");
    const value = strength ? { preference, strength } : { preference };
    const side = SIDES.findIndex((name) => name === preference);
    desk.vote("comparison", value, side < 0 ? t(`action.${preference}`) : t(`compare.${preference}`));
  };
  const prefer = (/** @type {"first" | "second"} */ side) => {
    if (!desk.strength || state.side === side) return say(side);
    state.side = side;
    desk.again();
  };
  const showDifferences = () => {
    state.diff = !state.diff;
    desk.again();
  };

  if (state.diff) markDifferences(offer, parts.map((part) => part.body));
  const chosen = SIDES.indexOf(state.side);
  parts[chosen]?.card.classList.add("chosen");

  const side = (/** @type {"first" | "second"} */ name) =>
    keyButton(t(`compare.${name}`), keys.hint(name), () => prefer(name), {
      class: `side-${name}`, "aria-pressed": desk.strength ? String(state.side === name) : null,
    });
  const level = (/** @type {"tie" | "both_bad"} */ name) =>
    keyButton(t(`action.${name}`), keys.hint(name), () => say(name));

  return {
    body: answers(parts.map((part) => part.card)),
    choices: h(
      "div",
      {},
      chosen >= 0 && strengths(letter(chosen), keys, (n) => say(state.side, n)),
      h("div", { class: "choices sides" }, side("first"), level("tie"), level("both_bad"), side("second")),
    ),
    clips,
    act: (action) => {
      if (action === "first" || action === "second") prefer(action);
      else if (action === "tie" || action === "both_bad") say(action);
      else if (action === "diff") showDifferences();
      else return false;
      return true;
    },
    digit: (digit) => {
      if (chosen < 0) return false;
      say(state.side, digit);
      return true;
    },
  };
}

/**
 * @param {string} side its letter
 * @param {import("../keys.js").Keys} keys
 * @param {(strength: number) => void} give
 * @returns {HTMLElement}
 */
function strengths(side, keys, give) {
  const name = t("compare.how_much", { letter: side });
  const note = (/** @type {number} */ n) =>
    n === 1 ? t("compare.slightly") : n === 9 ? t("compare.far") : "";
  return h(
    "div",
    { role: "group", "aria-label": name, class: "strength" },
    h("p", { class: "small soft" }, name),
    h("div", { class: "choices nine" },
      [1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) =>
        h("button", { class: "number", type: "button", onclick: () => give(n),
          "aria-keyshortcuts": keys.letters ? String(n) : null },
          h("span", {}, n), note(n) && h("small", {}, note(n))))),
  );
}

/**
 * @param {import("../api.js").Offer} offer
 * @param {HTMLElement[]} bodies
 */
function markDifferences(offer, bodies) {
  const [a, b] = offer.segments.map((segment) => segment.text.plain);
  const found = differences(a ?? "", b ?? "");
  if (!found) return tell(t("work.too_long"), "warn");
  bodies.forEach((body, i) => put(body, body.querySelector("video, img"), marked(found[i] ?? [])));
}

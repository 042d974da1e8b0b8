/**
 * Up to five answers in order. A digit gives the focused answer its place and goes on to the next one
 * without a place; = gives it the place of the last; the same place twice is a tie.
 */

import { h } from "../h.js";
import { t } from "../i18n.js";
import { tell } from "../frame.js";
import { answerCard, answers, keyButton, letter } from "./parts.js";

/**
 * Groups of positions from the best place to the worst; places nobody has are left out.
 * @param {number[]} places by position
 * @returns {number[][]}
 */
export function groups(places) {
  const used = [...new Set(places)].sort((a, b) => a - b);
  return used.map((place) => places.flatMap((its, i) => (its === place ? [i] : [])));
}

/**
 * @param {import("./parts.js").Desk} desk
 * @returns {import("./parts.js").View}
 */
export function rank(desk) {
  const { offer, keys, state } = desk;
  const num = offer.segments.length;
  /** @type {(number | null)[]} */
  const places = (state.places ??= Array.from({ length: num }, () => null));
  state.at ??= 0;
  const parts = offer.segments.map((segment, i) => answerCard(segment, i, num));

  const give = (/** @type {number} */ position, /** @type {number | null} */ place) => {
    places[position] = place;
    state.last = place ?? state.last;
    const open = places.findIndex((its) => its === null);
    if (place !== null && open >= 0) state.at = places.indexOf(null, position) >= 0 ? places.indexOf(null, position) : open;
    desk.again();
  };
  const clear = () => {
    places.fill(null);
    state.at = 0;
    state.last = null;
    desk.again();
  };
  const done = () => {
    const missing = places.filter((place) => place === null).length;
    if (missing) return tell(t("rank.unplaced", { n: missing }), "warn");
    desk.vote("ranking", { ranking: groups(places.map(Number)) }, t("rank.done"));
  };
  const move = (/** @type {number} */ by) => {
    state.at = (state.at + by + num) % num;
    parts[state.at]?.card.focus();
  };

  parts.forEach(({ card }, i) => {
    card.tabIndex = 0;
    card.addEventListener("focusin", () => (state.at = i));
    card.append(placeButtons(i, num, places[i] ?? null, give));
    const place = places[i];
    if (place) card.querySelector("h2")?.append(h("span", { class: "badge place" }, place));
  });
  return {
    body: h("div", { class: "stack" }, h("p", { class: "soft small" }, t("rank.hint")),
      answers(parts.map((part) => part.card))),
    choices: h("div", { class: "choices one" },
      keyButton(t("rank.clear"), "", clear),
      keyButton(t("rank.done"), "↵", done, { class: places.includes(null) ? null : "primary" })),
    focus: parts[state.at]?.card,
    clips: parts.flatMap((part) => part.clip ?? []),
    act: (action) => {
      if (action !== "first" && action !== "second") return false;
      move(action === "first" ? -1 : 1);
      return true;
    },
    digit: (digit) => {
      if (digit > num) return false;
      give(state.at, digit);
      return true;
    },
    press: (key) => {
      if (key === "=" && keys.letters && state.last) give(state.at, state.last);
      else if (key === "Backspace") give(state.at, null);
      else if (key === "Enter") done();
      else return false;
      return true;
    },
  };
}

/**
 * @param {number} position
 * @param {number} num
 * @param {number | null} place its own now
 * @param {(position: number, place: number | null) => void} give
 * @returns {HTMLElement}
 */
function placeButtons(position, num, place, give) {
  const button = (/** @type {number} */ n) =>
    h("button", { type: "button", "aria-pressed": String(n === place),
      "aria-label": t("rank.place", { place: n, letter: letter(position) }),
      onclick: () => give(position, n === place ? null : n) }, n);
  return h("div", { class: "places" }, Array.from({ length: num }, (_, i) => button(i + 1)));
}

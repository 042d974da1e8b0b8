/**
 * What the five kinds of question have in common: cards and buttons with their key printed on them.
 */

import { h } from "../h.js";
import { t } from "../i18n.js";
import { plain, shown } from "../text.js";
import { clip } from "./clip.js";

/** @typedef {import("../api.js").Offer} Offer */
/** @typedef {import("../api.js").Segment} Segment */
/** @typedef {import("../keys.js").Keys} Keys */
/**
 * What a question may use. `state` outlives a change of language, and so does what is half done.
 * @typedef {{offer: Offer, keys: Keys, strength: boolean, state: Record<string, any>,
 *   vote: (kind: string, value: Record<string, unknown>, said: string) => void,
 *   again: () => void, draft: (text: string | null) => void}} Desk
 */
/**
 * What a question gives: its body, the buttons of its answers, and what it does with keys. Each handler
 * says whether the press was for it.
 * @typedef {{body: HTMLElement, choices: HTMLElement, focus?: HTMLElement,
 *   act?: (action: string) => boolean, digit?: (digit: number) => boolean,
 *   press?: (key: string) => boolean, clips?: import("./clip.js").Clip[]}} View
 */

const LETTERS = "ABCDEFGHI";

/**
 * @param {number} position as shown
 * @returns {string}
 */
export function letter(position) {
  return LETTERS[position] ?? String(position + 1);
}

/**
 * A button with its key on it.
 * @param {string} text
 * @param {string} hint the key, printed; nothing where there is none
 * @param {() => void} act
 * @param {Record<string, unknown>} [props]
 * @returns {HTMLButtonElement}
 */
export function keyButton(text, hint, act, props = {}) {
  return h(
    "button",
    { type: "button", onclick: act, ...props },
    h("span", {}, text),
    hint && h("kbd", { "aria-hidden": "true" }, hint),
  );
}

/**
 * @param {Offer} offer
 * @returns {HTMLElement | false} nothing for a prompt without words, as of a clip
 */
export function promptCard(offer) {
  if (!offer.prompt.plain.trim()) return false;
  const name = t("work.prompt");
  return h("section", { class: "card prompt", "aria-label": name },
    !offer.prompt.messages && h("span", { class: "label" }, name), shown(offer.prompt));
}

/**
 * @param {Segment} segment
 * @param {number} position
 * @param {number} num of all that are shown; a single one has no letter
 * @returns {{card: HTMLElement, body: HTMLElement, clip: import("./clip.js").Clip | null}}
 */
export function answerCard(segment, position, num) {
  const film = segment.media && clip(segment.media);
  const body = h("div", {}, film && film.element, segment.text.plain && shown(segment.text));
  const id = `answer-${position}`;
  const name = num === 1 ? t("work.the_answer") : t("work.answer", { letter: letter(position) });
  const card = h("article", { class: "card answer", "aria-labelledby": id },
    h("h2", { id }, name), body);
  return { card, body, clip: film };
}

/**
 * @param {HTMLElement[]} cards
 * @returns {HTMLElement}
 */
export function answers(cards) {
  const width = cards.length === 2 ? "two" : cards.length > 2 ? "many" : "one";
  return h("div", { class: `answers ${width}` }, cards);
}

export { plain };

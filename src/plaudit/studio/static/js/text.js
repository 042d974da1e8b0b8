/**
 * Prompts and answers as elements: Markdown arrives as a tree of tokens and never as HTML.
 */

import { h } from "./h.js";
import { t } from "./i18n.js";

/** @typedef {import("./api.js").Text} Text */
/** @typedef {import("./api.js").Token} Token */

/** @type {Record<string, "p" | "li" | "ul" | "ol" | "code" | "em" | "strong" | "br" | "blockquote">} */
const ELEMENT = {
  p: "p", li: "li", ul: "ul", ol: "ol", code: "code", em: "em", strong: "strong", br: "br",
  quote: "blockquote",
};

/**
 * @param {Token} token
 * @returns {Node}
 */
function node(token) {
  const inside = typeof token.c === "string" ? [token.c] : (token.c ?? []).map(node);
  if (token.t === "text") return document.createTextNode(String(token.c ?? ""));
  // A region that scrolls must be reachable by keyboard; it keeps its arrow keys (keys.js).
  if (token.t === "pre") return h("pre", { tabindex: "0", "data-own-keys": true }, h("code", {}, inside));
  // The levels of an answer's headings are not those of this page.
  if (token.t === "h") return h("p", { class: "heading" }, inside);
  // An address is read, not followed: it was written by a model.
  if (token.t === "link") {
    return h("span", {}, inside, " ", h("span", { class: "address mono" }, token.href ?? ""));
  }
  return h(ELEMENT[token.t] ?? "p", {}, inside);
}

/**
 * A tree of tokens, as of guidelines.
 * @param {Token[]} tokens
 * @returns {HTMLElement}
 */
export function prose(tokens) {
  return h("div", { class: "prose", dir: "auto" }, tokens.map(node));
}

/**
 * A text or a conversation.
 * @param {Text} text
 * @returns {HTMLElement}
 */
export function shown(text) {
  if (!text.messages) return prose(text.tokens);
  return h(
    "div",
    {},
    text.messages.map((message) =>
      h(
        "div",
        { class: "turn" },
        h("span", { class: "label" }, roleName(message.role)),
        message.tokens ? prose(message.tokens) : plain(message.content),
      ),
    ),
  );
}

/**
 * @param {string} text
 * @returns {HTMLElement}
 */
export function plain(text) {
  return h("div", { class: "prose plain", dir: "auto" }, text);
}

/**
 * A plain text in which some runs are marked, as of a comparison word by word.
 * @param {import("./diff.js").Run[]} runs
 * @returns {HTMLElement}
 */
export function marked(runs) {
  return h(
    "div",
    { class: "prose plain", dir: "auto" },
    runs.map((run) => (run.differs ? h("mark", {}, run.text) : run.text)),
  );
}

/**
 * @param {string} role
 * @returns {string}
 */
function roleName(role) {
  const said = t(`work.role.${role}`);
  return said.startsWith("work.role.") ? role : said;
}

/**
 * What several admin pages are made of: tables, fields, a text to copy, times.
 */

import { tell } from "../frame.js";
import { h } from "../h.js";
import { number, t } from "../i18n.js";

/** @typedef {import("../h.js").Piece} Piece */

/**
 * A table that may be wider than the page; a column whose title begins with "#" holds numbers. On a
 * narrow page its rows become cards, unless it is `plain`; roles are named since they would be lost.
 * @param {string} caption
 * @param {string[]} titles
 * @param {Piece[][]} rows
 * @param {boolean} [plain]
 * @returns {HTMLElement}
 */
export function table(caption, titles, rows, plain = false) {
  const cell = (/** @type {Piece} */ piece, /** @type {number} */ i) => {
    const title = titles[i] ?? "";
    return i === 0
      ? h("th", { scope: "row", role: "rowheader", class: "first" }, piece)
      : h("td", { role: "cell", class: title.startsWith("#") ? "num" : null, "data-title": title.replace(/^#/, "") }, piece);
  };
  return h(
    "div",
    { class: "scroller", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      { role: "table", class: plain ? null : "folds" },
      h("caption", { class: "unseen" }, caption),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, titles.map((title) =>
        h("th", { scope: "col", role: "columnheader", class: title.startsWith("#") ? "num" : null },
          title.replace(/^#/, ""))))),
      h("tbody", { role: "rowgroup" }, rows.map((row) => h("tr", { role: "row" }, row.map(cell)))),
    ),
  );
}

/**
 * A field with its label, and a sentence below it.
 * @template {HTMLElement} E
 * @param {string} label
 * @param {E} input
 * @param {string} [hint]
 * @returns {HTMLElement}
 */
export function field(label, input, hint) {
  const id = `field-${Math.random().toString(36).slice(2)}`;
  input.id = id;
  if (hint) input.setAttribute("aria-describedby", `${id}-hint`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    input,
    hint ? h("span", { class: "soft small", id: `${id}-hint` }, hint) : null,
  );
}

/**
 * @param {string[][]} options [value, shown] each
 * @param {string} [chosen]
 * @param {Record<string, unknown>} [props]
 * @returns {HTMLSelectElement}
 */
export function select(options, chosen, props = {}) {
  return h("select", props, options.map(([value, shown]) =>
    h("option", { value, selected: value === chosen }, shown ?? value)));
}

/**
 * A text in a field of its own that one press copies.
 * @param {string} label
 * @param {string} text
 * @returns {HTMLElement}
 */
export function copyable(label, text) {
  const input = h("input", { class: "mono", readonly: true, value: text, "aria-label": label,
    onfocus: () => input.select() });
  const copy = async () => {
    input.select();
    try {
      await navigator.clipboard.writeText(text);
      tell(t("part.copied"), "good");
    } catch {
      tell(t("part.copy_yourself"), "warn"); // no secure context: the text is selected
    }
  };
  return h("div", { class: "copyable" }, input, h("button", { onclick: copy }, t("part.copy")));
}

/**
 * A command line as it would be typed.
 * @param {string} text
 * @returns {HTMLElement}
 */
export function commandLine(text) {
  return h("pre", { class: "command", tabindex: "0" }, h("code", {}, text));
}

/**
 * A time as "5 minutes ago" or a date.
 * @param {number} seconds since 1970
 * @returns {HTMLElement}
 */
export function when(seconds) {
  const date = new Date(seconds * 1000);
  const ago = (Date.now() - date.getTime()) / 1000;
  const locale = document.documentElement.lang;
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto", style: "short" });
  const full = date.toLocaleString(locale);
  let said = date.toLocaleDateString(locale);
  if (ago < 90) said = relative.format(-Math.max(Math.round(ago), 0), "second");
  else if (ago < 5400) said = relative.format(-Math.round(ago / 60), "minute");
  else if (ago < 129600) said = relative.format(-Math.round(ago / 3600), "hour");
  return h("time", { datetime: date.toISOString(), title: full }, said);
}

/**
 * A number as short as it is worth: 3 digits, thousands apart.
 * @param {number | null | undefined} value
 * @returns {string}
 */
export function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (Number.isInteger(value)) return number(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return number(value, { maximumSignificantDigits: Math.max(3, Math.floor(Math.log10(size || 1)) + 1) });
}

/**
 * @param {number | null | undefined} share
 * @returns {string}
 */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  return number(share, { style: "percent", maximumFractionDigits: 0 });
}

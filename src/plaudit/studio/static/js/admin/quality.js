/**
 * Quality: how people agree with themselves and each other, and which items divide them.
 */

import { call } from "../api.js";
import { h, paint, put } from "../h.js";
import { number, t } from "../i18n.js";
import { attempt } from "./main.js";
import { percent, short, table } from "./parts.js";

/** @typedef {{num: number, share: number, low: number, high: number}} Share */
/**
 * @typedef {{name: string, role: string, paused: boolean, num_votes: number, num_undone: number,
 *   num_skips: number, num_flags: number, median_seconds: number | null, self_agreement: Share | null,
 *   first_shown: Share | null, with_others: Share | null, note: string}} Person
 * @typedef {{values: Record<string, number | null>, reasons: Record<string, string>, num_units: number,
 *   num_votes: number, surplus: number, overlap: number}} Agreement
 * @typedef {{number: number, key: string, num_answers: number, surplus: number, num_skips: number,
 *   num_flags: number, spread: number | null}} Item
 */

const PAGE = 50;

/** @param {HTMLElement} main */
export async function quality(main) {
  /** @type {{people: Person[], agreement: Agreement}} */
  const found = await call("GET", "quality");
  const items = h("section", { class: "card stack", "aria-labelledby": "items-title" });
  put(main, h("h1", {}, t("quality.title")), persons(found.people), agreement(found.agreement), items);
  await show(0);

  /** @param {number} after @param {number[]} [before] */
  async function show(after, before = []) {
    /** @type {{items: Item[], next: number | null}} */
    const page = await call("GET", `quality/items?after=${after}&limit=${PAGE}`);
    const { next } = page;
    const titles = [t("quality.item"), `#${t("quality.votes")}`, `#${t("quality.spread")}`,
      `#${t("quality.surplus")}`, `#${t("quality.skips")}`, `#${t("quality.flags")}`];
    put(items, h("h2", { id: "items-title" }, t("quality.items")),
      page.items.length ? table(t("quality.items"), titles, page.items.map((one) => [
        h("span", { class: "mono key-of-item" }, one.key), number(one.num_answers), short(one.spread),
        number(one.surplus), number(one.num_skips), number(one.num_flags)])) : h("p", { class: "soft" }, t("data.no_items")),
      h("div", { class: "row" },
        before.length ? h("button", { onclick: () => attempt(() => show(before.at(-1) ?? 0, before.slice(0, -1))) }, t("part.back")) : null,
        next !== null ? h("button", { onclick: () => attempt(() => show(next, [...before, after])) }, t("part.next")) : null));
  }
}

/** @param {Person[]} people */
function persons(people) {
  const titles = [t("people.name"), `#${t("quality.votes")}`, `#${t("quality.median")}`, `#${t("quality.self")}`,
    `#${t("quality.first")}`, `#${t("quality.others")}`, `#${t("quality.skips")}`, `#${t("quality.flags")}`];
  const voted = people.filter((one) => one.num_votes > 0);
  return h("section", { class: "card stack", "aria-labelledby": "people-title" },
    h("h2", { id: "people-title" }, t("quality.people")),
    voted.length ? table(t("quality.people"), titles, voted.map((one) => [
      [one.name, one.paused ? h("span", { class: "badge warn" }, t("people.paused")) : null],
      number(one.num_votes),
      short(one.median_seconds),
      share(one, one.self_agreement),
      share(one, one.first_shown),
      share(one, one.with_others),
      number(one.num_skips),
      number(one.num_flags),
    ])) : h("p", { class: "soft" }, t("quality.none")),
    voted.some((one) => one.note) ? h("p", { class: "soft small" }, t("quality.too_few_what")) : null);
}

/** A share with its interval as a bar and in words. @param {Person} person @param {Share | null} one */
function share(person, one) {
  if (person.note) return h("span", { class: "badge" }, t("quality.too_few"));
  if (!one) return "–";
  const bar = h("span", { class: "interval", "aria-hidden": "true" }, h("span", {}));
  paint(bar, { "--low": `${one.low * 100}%`, "--wide": `${(one.high - one.low) * 100}%`, "--at": `${one.share * 100}%` });
  return [bar, h("span", {}, t("quality.interval", { value: percent(one.share), low: percent(one.low), high: percent(one.high) }))];
}

/** @param {Agreement} found */
function agreement(found) {
  return h("section", { class: "card stack", "aria-labelledby": "agreement-title" },
    h("h2", { id: "agreement-title" }, t("quality.agreement")),
    h("p", { class: "soft small" }, t("quality.of_uniform"), " ", t("quality.of", { units: found.num_units, votes: found.num_votes })),
    h("div", { class: "cards" }, Object.entries(found.values).map(([name, value]) => h("div", { class: "card sunken" },
      h("div", { class: "soft small" }, t(`quality.${name}`)),
      value === null ? h("span", { class: "badge" }, t(found.num_votes < 40 ? "quality.too_few" : "quality.undefined"))
        : h("div", { class: "figure" }, name === "percent" ? percent(value) : number(value, { minimumFractionDigits: 2, maximumFractionDigits: 2 }))))));
}

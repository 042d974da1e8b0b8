/**
 * Data: files in and out, and what is asked about, page by page.
 */

import { call } from "../api.js";
import { h, put } from "../h.js";
import { number, t } from "../i18n.js";
import { shown } from "../text.js";
import { attempt } from "./main.js";
import { field } from "./parts.js";

/** @typedef {import("../api.js").Text} Text */
/**
 * @typedef {{id: number, key: string, prompt: Text, columns: Record<string, unknown>,
 *   segments: {text: Text, kind: string, model: string | null}[]}} Item
 */

const FORMS = ["preference", "votes", "unpaired", "scores", "rankings", "edits", "sft", "items"];
const ENDINGS = /\.((?:jsonl|json|csv|tsv)(?:\.gz)?|parquet)$/i;
const PAGE = 20;

/**
 * @param {HTMLElement} main
 * @param {import("../api.js").Me} who
 */
export async function data(main, who) {
  const items = h("section", { class: "card stack", "aria-labelledby": "items-title" });
  put(main, h("h1", {}, t("data.title")),
    who.role === "admin" ? coming(() => show(0)) : null, going(), items);
  await show(0);

  /** @param {number} after @param {number[]} [before] */
  async function show(after, before = []) {
    /** @type {{items: Item[], next: number | null}} */
    const found = await call("GET", `items?after=${after}&limit=${PAGE}`);
    const { next } = found;
    put(items, h("h2", { id: "items-title" }, t("data.items")),
      found.items.length ? h("ol", { class: "plain" }, found.items.map(item)) : h("p", { class: "soft" }, t("data.no_items")),
      h("div", { class: "row" },
        before.length ? h("button", { onclick: () => attempt(() => show(before[before.length - 1] ?? 0, before.slice(0, -1))) }, t("part.back")) : null,
        next !== null ? h("button", { onclick: () => attempt(() => show(next, [...before, after])) }, t("part.next")) : null));
  }
}

/** @param {Item} one */
function item(one) {
  const columns = Object.keys(one.columns).length ? JSON.stringify(one.columns) : "";
  return h("li", {}, h("details", { class: "item" },
    h("summary", {}, h("span", { class: "soft mono" }, number(one.id)), h("span", { class: "clip" }, one.prompt.plain)),
    h("div", { class: "stack" },
      shown(one.prompt),
      h("div", { class: "answers" }, one.segments.map((segment) => h("div", { class: "card sunken" },
        shown(segment.text),
        segment.model ? h("span", { class: "badge" }, segment.model) : null))),
      h("p", { class: "soft small mono" }, one.key, columns ? ` · ${columns}` : ""))));
}

/** @param {() => Promise<void>} done */
function coming(done) {
  const file = h("input", { type: "file", required: true, accept: ".jsonl,.json,.csv,.tsv,.gz,.parquet" });
  const said = h("div", { role: "status" });
  const send = h("button", { class: "primary" }, t("data.import"));
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const chosen = file.files?.[0];
    if (!chosen) return;
    put(said, h("p", { class: "notice" }, t("data.importing", { name: chosen.name })));
    void attempt(async () => {
      try {
        const ending = ENDINGS.exec(chosen.name)?.[1]?.toLowerCase() ?? "jsonl";
        const query = new URLSearchParams({ format: ending, rater: chosen.name });
        const found = await call("POST", `imports?${query}`, chosen,
          { type: "application/octet-stream", timeout: 3600000 });
        put(said, h("div", { class: "notice good" }, h("p", {}, t("data.imported", found)),
          found.notes.map((/** @type {string} */ note) => h("p", { class: "small" }, note))));
        await done();
      } catch (problem) {
        put(said);
        throw problem;
      }
    }, send);
  };
  return h("section", { class: "card stack", "aria-label": t("data.import") },
    h("form", { class: "form", onsubmit: submit }, field(t("data.file"), file, t("data.file_what")), send), said);
}

function going() {
  return h("section", { class: "card stack", "aria-labelledby": "export-title" },
    h("h2", { id: "export-title" }, t("data.export")),
    h("ul", { class: "plain exports" }, FORMS.map((form) => h("li", {},
      h("a", { class: "button", href: `/api/v1/exports/${form}.jsonl`, download: `${form}.jsonl` }, t(`data.form.${form}`)),
      h("span", { class: "soft small" }, t(`data.form.${form}.what`))))));
}

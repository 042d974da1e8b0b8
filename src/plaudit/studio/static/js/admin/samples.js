/**
 * Samples of a run: the newest answers with their reward, each piece of text coloured by how far it
 * lies from the reference.
 */

import { call } from "../api.js";
import { h, put } from "../h.js";
import { t } from "../i18n.js";
import { attempt } from "./main.js";
import { field, select, short } from "./parts.js";

/** @typedef {{n: number, stage: string, step: number, prompt?: unknown, completion?: unknown,
 *   score?: number, kl?: number, pieces?: string[], token_kl?: number[], [key: string]: unknown}} Sample */

const PAGE = 8;
const OWN = new Set(["n", "stage", "step", "prompt", "completion", "pieces", "token_kl"]);
/** Nats at which a colour is one darker. */
const BOUNDS = [0.1, 0.5, 1.5, 3];

/**
 * @param {string} name the run's
 * @returns {{element: HTMLElement, refresh: () => Promise<void>}}
 */
export function samples(name) {
  const list = h("div", { class: "stack" });
  const more = h("div", { class: "row" });
  const chooser = h("div", {});
  const element = h("section", { class: "card stack", "aria-labelledby": "samples-title" },
    h("div", { class: "row apart" }, h("h2", { id: "samples-title" }, t("run.samples")), chooser), legend(), list, more);
  let stage = "";
  /** @type {Record<string, string>} */
  let place = {}; // nothing: the newest
  let shown = "";

  /** Shows what is there now, unless somebody looks at an older page. */
  async function refresh() {
    if (!Object.keys(place).length) await load();
  }

  async function load() {
    const query = new URLSearchParams({ limit: String(PAGE), ...(stage ? { stage } : {}), ...place });
    /** @type {{samples: Sample[], next: number | null, first: number | null, total: number, stages: string[]}} */
    const found = await call("GET", `runs/${encodeURIComponent(name)}/samples?${query}`);
    const told = JSON.stringify([found, stage, place]);
    if (told === shown) return;
    shown = told;
    element.hidden = !found.total;
    put(chooser, found.stages.length > 1 ? stageChooser(found.stages) : null);
    put(list, found.samples.map(card));
    const first = found.samples[0]?.n;
    const isOld = Object.keys(place).length > 0;
    put(more,
      first && first !== found.first ? h("button", { onclick: () => go({ before: String(first) }) }, t("run.earlier")) : null,
      found.next !== null ? h("button", { onclick: () => go({ after: String(found.next) }) }, t("run.later")) : null,
      isOld ? h("button", { onclick: () => go({}) }, t("run.newest")) : null);
  }

  /** @param {Record<string, string>} next */
  function go(next) {
    place = next;
    return attempt(load);
  }

  /** @param {string[]} stages */
  function stageChooser(stages) {
    const input = select([["", t("run.all_stages")], ...stages.map((one) => [one, one])], stage, {
      onchange: () => {
        stage = input.value;
        void go({});
      },
    });
    return field(t("run.stage"), input);
  }

  return { element, refresh };
}

/** @param {Sample} one */
function card(one) {
  const numbers = Object.entries(one).filter(([key, value]) => !OWN.has(key) && typeof value === "number");
  return h("article", { class: "sample" },
    h("div", { class: "row small" }, h("span", { class: "badge" }, `${one.stage} ${one.step}`),
      numbers.map(([key, value]) => h("span", {}, h("span", { class: "soft" }, `${label(key)} `),
        h("strong", {}, short(Number(value)))))),
    typeof one.prompt === "string" ? h("p", { class: "text soft" }, one.prompt) : null,
    one.pieces && one.token_kl ? coloured(one.pieces, one.token_kl)
      : h("p", { class: "text" }, typeof one.completion === "string" ? one.completion : ""));
}

/** @param {string} key */
const label = (key) => ({ score: t("run.reward"), kl: "KL" })[key] ?? key;

/** @param {string[]} pieces @param {number[]} distances */
function coloured(pieces, distances) {
  return h("p", { class: "text pieces" }, pieces.map((piece, k) => {
    const nats = distances[k] ?? 0;
    return piece ? h("span", { class: shade(nats), title: t("run.nats", { n: short(nats) }) }, piece) : null;
  }));
}

/** @param {number} nats */
function shade(nats) {
  const depth = BOUNDS.filter((bound) => Math.abs(nats) >= bound).length;
  return depth ? `${nats > 0 ? "more" : "less"}${depth}` : null;
}

function legend() {
  const scale = [-3, -1.5, -0.5, -0.1, 0, 0.1, 0.5, 1.5, 3];
  return h("div", { class: "row small soft pieces" }, t("run.less_likely"),
    h("span", { class: "shades" }, scale.map((nats) => h("span", { class: shade(nats) }, short(nats)))), t("run.more_likely"));
}

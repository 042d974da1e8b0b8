/**
 * The admin's pages: which of them the address names, and what all of them share.
 *
 * A page is a function `(main, who, rest)` that fills `main` and may give back what is to be done
 * when it is left. Pages are loaded when they are first shown.
 */

import { me, Problem } from "../api.js";
import { header, tell } from "../frame.js";
import { byId, h, put } from "../h.js";
import { lang, learn, speak, t } from "../i18n.js";

/** @typedef {import("../api.js").Me} Me */
/** @typedef {(main: HTMLElement, who: Me, rest: string[]) => Promise<(() => void) | void>} Page */

learn(async (next) => (await (next === "zh" ? import("./words.zh.js") : import("./words.en.js"))).words);

/** @type {Record<string, () => Promise<Page>>} */
const PAGES = {
  people: async () => (await import("./people.js")).people,
  data: async () => (await import("./data.js")).data,
  quality: async () => (await import("./quality.js")).quality,
  runs: async () => (await import("./runs.js")).runs,
  settings: async () => (await import("./settings.js")).settings,
};

/** @type {Me | null} */
let who = null;
/** @type {(() => void) | void} */
let leave;
let turn = 0;

/** Shows what the address names; an older call that is still loading gives way. */
async function show() {
  const mine = ++turn;
  leave?.();
  leave = undefined;
  const [said = "", ...rest] = location.hash.slice(1).split("/").map(decodeURIComponent);
  const way = said in PAGES ? said : "people";
  if (!who) return;
  header(who, way);
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  document.title = `${t(`way.${way}`)} · Plaudit`;
  const main = h("main", { class: "page stack", id: "main", tabindex: "-1" });
  put(byId("app"), main);
  try {
    const page = await PAGES[way]?.();
    const done = await page?.(main, who, rest);
    if (mine === turn) leave = done;
    else done?.();
  } catch (problem) {
    if (mine !== turn) return;
    if (problem instanceof Problem && problem.status === 401) return location.assign("/join");
    put(main, h("div", { class: "notice bad", role: "alert" }, sentence(problem)));
  }
}

/**
 * @param {unknown} problem
 * @returns {string}
 */
export function sentence(problem) {
  return problem instanceof Error ? problem.message : String(problem);
}

/**
 * Do something that may fail; its sentence floats over the page then.
 * @template T
 * @param {() => Promise<T>} act
 * @param {HTMLButtonElement | null} [button] switched off meanwhile
 * @returns {Promise<T | undefined>}
 */
export async function attempt(act, button = null) {
  if (button) button.disabled = true;
  try {
    return await act();
  } catch (problem) {
    tell(sentence(problem), "bad");
    return undefined;
  } finally {
    if (button) button.disabled = false;
  }
}

async function begin() {
  await speak(lang());
  try {
    who = await me();
  } catch (problem) {
    return tell(sentence(problem), "bad", 0);
  }
  if (!who) return location.assign("/join");
  addEventListener("hashchange", async () => {
    await show();
    document.getElementById("main")?.focus();
  });
  addEventListener("plaudit-lang", () => show());
  await show();
}

void begin();

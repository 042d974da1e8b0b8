/**
 * Runs: the list, and what can be started from here; one run is `run.js`.
 */

import { call } from "../api.js";
import { panel, tell } from "../frame.js";
import { h, put } from "../h.js";
import { t } from "../i18n.js";
import { attempt, sentence } from "./main.js";
import { commandLine, field, select, table, when } from "./parts.js";
import { run } from "./run.js";

/**
 * @typedef {{name: string, job: string, state: string, stage: string | null, step: number | null,
 *   touched: number, failed: string | null, waiting: {votes: number, wanted: number} | null}} Brief
 * @typedef {{runs: Brief[], jobs: string[], from_votes: string[], judges: string[],
 *   num_comparisons: number}} Runs
 */

const KINDS = /** @type {Record<string, string>} */ ({ running: "good", waiting: "warn", starting: "warn", failed: "bad" });
const LOOK_EVERY = 3000;

/** @param {string} state @returns {HTMLElement} */
export const badge = (state) => h("span", { class: `badge ${KINDS[state] ?? ""}` }, t(`runs.state.${state}`));

/**
 * @param {HTMLElement} main
 * @param {import("../api.js").Me} who
 * @param {string[]} rest
 */
export async function runs(main, who, rest) {
  if (rest[0]) return run(main, who, rest[0]);
  const list = h("section", { class: "card", "aria-label": t("runs.title") });
  const starters = h("div", { class: "row" });
  /** @type {Runs} */
  let found = await call("GET", "runs");
  put(main, h("div", { class: "row apart" }, h("h1", {}, t("runs.title")), starters), list);
  if (who.role === "admin") {
    put(starters,
      h("button", { onclick: () => starter("reward", found, true, refresh) }, t("runs.fit")),
      h("button", { class: "primary", onclick: () => starter("rlhf", found, false, refresh) }, t("runs.start")));
  }
  let shown = "";
  fill();
  const timer = setInterval(() => refresh().catch(() => undefined), LOOK_EVERY);
  return () => clearInterval(timer);

  async function refresh() {
    found = await call("GET", "runs");
    fill();
  }

  function fill() {
    const told = JSON.stringify(found.runs);
    if (told === shown) return;
    shown = told;
    if (!found.runs.length) return put(list, h("p", { class: "soft" }, t("runs.none")));
    return put(list, table(t("runs.title"), [t("runs.name"), t("runs.job"), t("runs.state"), t("runs.where"), t("runs.touched")],
      found.runs.map((one) => [
        one.state === "starting" || (one.state === "failed" && !one.stage) ? one.name
          : h("a", { href: `#runs/${encodeURIComponent(one.name)}` }, one.name),
        one.job,
        [badge(one.state), one.failed ? h("p", { class: "small failed" }, one.failed) : null],
        one.waiting ? t("runs.votes", one.waiting) : one.stage ? `${one.stage} ${one.step ?? ""}` : "–",
        when(one.touched),
      ])));
  }
}

/**
 * The panel that starts a job: its fields make a command line, which the server checks and shows.
 * @param {string} job
 * @param {Runs} found
 * @param {boolean} fits a reward model from this studio's votes
 * @param {() => Promise<void>} done
 */
function starter(job, found, fits, done) {
  const jobs = select(found.jobs.map((one) => [one]), job, { onchange: () => arrange() });
  const name = h("input", { maxlength: 200, autocomplete: "off", placeholder: t("runs.name_free") });
  const model = h("input", { value: "smollm2", required: true });
  const prompts = h("input", { value: "demo" });
  const votes = select([], "");
  const judge = select([["sentiment", t("runs.sentiment")], ...found.judges.map((one) => [one])], found.judges[0] ?? "sentiment");
  const more = h("textarea", { class: "mono few", placeholder: "ppo.num_steps = 20\nseed = 1", spellcheck: "false" });
  const line = h("div", { "aria-live": "polite" });
  const go = h("button", { class: "primary" }, t(fits ? "runs.fit" : "runs.start"));
  const fields = h("div", { class: "form" });
  let asked = 0;

  function arrange() {
    const learns = found.from_votes.includes(jobs.value);
    const choices = learns ? [["here", t("runs.votes_here", { n: found.num_comparisons })]] : [];
    if (jobs.value === "rlhf") choices.push(["people", t("runs.votes_people")], ["own", t("runs.votes_own")]);
    const before = votes.value;
    put(votes, choices.map(([value, said]) => h("option", { value, selected: value === before }, said ?? "")));
    put(fields, fits ? null : field(t("runs.job"), jobs, t(`runs.job.${jobs.value}`)), field(t("runs.name"), name), field(t("runs.model"), model),
      ["reward", "dpo"].includes(jobs.value) ? null : field(t("runs.prompts"), prompts),
      choices.length ? field(t("runs.votes_from"), votes) : field(t("runs.judge"), judge));
    void ask();
  }

  function wanted() {
    /** @type {Record<string, string | number | boolean>} */
    const keys = { model: model.value.trim() };
    if (prompts.isConnected) keys.prompts = prompts.value.trim();
    if (judge.isConnected) keys.reward = judge.value;
    if (votes.isConnected && votes.value === "people") keys["feedback.source"] = "people";
    for (const row of more.value.split("\n")) {
      const [key = "", ...value] = row.split(/[=:]/);
      if (key.trim()) keys[key.trim()] = value.join("=").trim();
    }
    return { job: jobs.value, name: name.value.trim() || null, keys, votes: votes.isConnected && votes.value === "here" };
  }

  async function ask() {
    const mine = ++asked;
    try {
      const said = await call("POST", "runs", { ...wanted(), dry: true });
      if (mine === asked) put(line, commandLine([said.before, said.command].filter(Boolean).join("\n")));
    } catch (problem) {
      if (mine === asked) put(line, h("p", { class: "notice warn" }, sentence(problem)));
    }
  }

  let timer = 0;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, 300);
  };
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    clearTimeout(timer);
    asked++; // what is still being asked is of no interest any more
    void attempt(async () => {
      const said = await call("POST", "runs", wanted());
      box.close();
      tell(t("runs.started", { name: said.name }), "good");
      await done();
    }, go);
  };
  const box = panel(t(fits ? "runs.fit" : "runs.start"), h("form", { class: "stack", onsubmit: submit, oninput: later, onchange: later },
    fields, field(t("runs.more"), more, t("runs.more_what")), h("h3", {}, t("runs.command")), line, h("div", { class: "row" }, go)));
  arrange();
}

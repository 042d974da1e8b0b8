/**
 * One run: what it waits for, alarms, curves as they come, the over-optimisation view, samples.
 */

import { call } from "../api.js";
import { h, put } from "../h.js";
import { number, t } from "../i18n.js";
import { chart } from "./chart.js";
import { attempt } from "./main.js";
import { commandLine, copyable, short, table } from "./parts.js";
import { badge } from "./runs.js";
import { samples } from "./samples.js";

/** @typedef {import("./chart.js").Point} Point */
/** @typedef {{kind: string, stage: string, step: number, sentence: string, numbers: Record<string, number>}} Alarm */
/** @typedef {Record<string, Record<string, Point[]>>} Curves */
/**
 * @typedef {import("./runs.js").Brief & {alarms: Alarm[], curves: Curves, place: string, config: string,
 *   over: {step: number, sqrt_kl: number, reward: number, gold?: number, eval?: number}[],
 *   meanings: Record<string, {sentence: string, healthy: string}>, results: Record<string, unknown> | null,
 *   command: string | null, stages: {name: string, done: boolean, seconds: number | null}[]}} Whole
 */

/** What is drawn first, in this order: metrics that belong on one chart; `>` puts one at the right. */
const FIRST = [
  ["objective/scores", ">gold/mean", ">eval/reward"], ["objective/kl"], ["eval/accuracy", "accuracy"],
  ["rollout/return", "eval/return"], ["answer/length"], ["answer/finished"], ["groups/with_signal"], ["loss", "eval/loss"],
  ["policy/entropy_avg", "policy/entropy"],
];
const DRAW_EVERY = 400;

/**
 * @param {HTMLElement} main
 * @param {import("../api.js").Me} who
 * @param {string} name
 */
export async function run(main, who, name) {
  const path = `runs/${encodeURIComponent(name)}`;
  /** @type {Whole} */
  let whole = await call("GET", path);
  const head = h("div", { class: "stack" });
  const signs = h("section", { class: "stack", "aria-label": t("run.alarms"), "aria-live": "polite" });
  const drawings = h("div", { class: "charts" });
  const rest = h("div", { class: "stack" });
  const shown = samples(name);
  /** @type {Map<string, ReturnType<typeof chart>>} */
  const made = new Map();
  /** @type {EventSource | null} */
  let stream = null;
  let timer = 0;
  let headed = "";
  const spot = h("span", { class: "soft" });
  const votes = h("div", {});
  put(main, head, signs, drawings, shown.element, rest);
  all();
  listen();
  await shown.refresh();
  return () => {
    stream?.close();
    clearTimeout(timer);
    made.forEach((one) => one.stop());
  };

  function all() {
    heading();
    alarmList();
    draw();
    details();
  }

  /** The head: its buttons are made anew only when what they do has changed, so that focus stays. */
  function heading() {
    const key = JSON.stringify([whole.state, whole.command]);
    spot.textContent = where();
    put(votes, whole.waiting ? waiting(whole.waiting) : null);
    if (key === headed) return;
    headed = key;
    const act = (/** @type {string} */ verb, kind = "") => {
      const button = h("button", { class: kind, onclick: () => attempt(async () => {
        await call("POST", `${path}/${verb}`);
        if (verb === "resume") setTimeout(listen, 1500);
      }, button) }, t(`run.${verb}`));
      return button;
    };
    const works = whole.state === "running" || whole.state === "waiting";
    put(head,
      h("nav", { "aria-label": t("runs.title") }, h("a", { href: "#runs" }, `← ${t("runs.title")}`)),
      h("div", { class: "row apart" },
        h("div", { class: "row" }, h("h1", {}, name), badge(whole.state), spot),
        who.role === "admin" && works ? act("stop", "danger") : null,
        who.role === "admin" && whole.state === "stopped" ? act("resume", "primary") : null),
      votes,
      whole.command ? commandLine(whole.command) : null);
  }

  /** Where it is, while it is not at its end. */
  function where() {
    return whole.stage && !whole.results ? `${whole.stage} ${whole.step === null ? "" : number(whole.step)}` : "";
  }

  /** @param {{votes: number, wanted: number}} votes */
  function waiting(votes) {
    return h("div", { class: "notice warn stack" }, h("p", {}, t("run.waits", votes)),
      h("progress", { max: votes.wanted, value: votes.votes, "aria-label": t("run.votes") }),
      h("p", {}, t("run.vote_by")),
      copyable(t("run.vote_by"), `plaudit studio --run ${name}`));
  }

  function alarmList() {
    put(signs, whole.alarms.map((one) => h("div", { class: "notice warn" },
      h("strong", {}, t(`alarm.${one.kind}.title`)), " ", alarmText(one))));
  }

  function draw() {
    for (const [stage, metrics] of Object.entries(whole.curves)) {
      const open = new Set(Object.keys(metrics));
      for (const group of FIRST) {
        const names = group.map((one) => one.replace(">", "")).filter((one) => open.has(one));
        if (!names.length || !metrics[names[0] ?? ""]?.length) continue;
        names.forEach((one) => open.delete(one));
        const series = names.map((one, k) => ({ name: one, points: metrics[one] ?? [],
          right: k > 0 && group.includes(`>${one}`) }));
        const main_ = names[0] ?? "";
        one(`${stage}/${main_}`, drawings, { title: `${stage}: ${names.join(", ")}`, x: t("run.step"),
          note: whole.meanings[main_]?.sentence, series });
      }
    }
    const points = whole.over;
    if (points.length > 1) {
      const judged = ["gold", "eval"].filter((key) => points.some((p) => key in p));
      /** @param {"reward" | "gold" | "eval"} key @returns {Point[]} */
      const line = (key) => points.filter((p) => p[key] !== undefined).map((p) => /** @type {Point} */ ([p.sqrt_kl, p[key]]));
      one("over", drawings, { title: t("run.over"), x: "√KL", note: t("run.over_what"), dots: true,
        series: [{ name: t("run.reward"), points: line("reward") },
          ...judged.map((key) => ({ name: t(`run.${key}`), right: true, points: line(/** @type {"gold"} */ (key)) }))] });
    }
  }

  /** @param {string} key @param {HTMLElement} parent @param {import("./chart.js").Plan} plan */
  function one(key, parent, plan) {
    const known = made.get(key);
    if (known) return known.update(plan.series);
    const fresh = chart(plan);
    made.set(key, fresh);
    parent.append(fresh.element);
  }

  function details() {
    const results = Object.entries(whole.results ?? {}).filter(([, value]) => typeof value === "number");
    put(rest,
      results.length ? h("details", { class: "card" }, h("summary", {}, t("run.results")),
        table(t("run.results"), [t("run.metric"), `#${t("run.value")}`, t("run.meaning")], results.map(([key, value]) =>
          [key, short(Number(value)), whole.meanings[key]?.sentence ?? ""]))) : null,
      h("details", { class: "card" }, h("summary", {}, t("run.stages")),
        table(t("run.stages"), [t("run.stage"), t("runs.state"), `#${t("run.seconds")}`], whole.stages.map((stage) =>
          [stage.name, badge(stage.done ? "finished" : whole.state === "finished" ? "finished" : "running"), short(stage.seconds)]))),
      others(),
      h("details", { class: "card" }, h("summary", {}, t("run.config")), h("pre", { class: "command", tabindex: "0" }, whole.config)));
  }

  /** Curves that are drawn when somebody asks for them. */
  function others() {
    const box = h("div", { class: "charts" });
    const taken = new Set(FIRST.flat().map((key) => key.replace(">", "")));
    const fill = () => {
      if (box.childElementCount) return;
      for (const [stage, metrics] of Object.entries(whole.curves)) {
        for (const [key, points] of Object.entries(metrics)) {
          if (taken.has(key) || points.length < 2) continue;
          one(`more/${stage}/${key}`, box, { title: `${stage}: ${key}`, x: t("run.step"),
            note: whole.meanings[key]?.sentence, series: [{ name: key, points }] });
        }
      }
    };
    return h("details", { class: "card", ontoggle: fill }, h("summary", {}, t("run.others")), box);
  }

  function listen() {
    stream?.close();
    stream = null;
    if (whole.state === "finished") return;
    stream = new EventSource(`/api/v1/${path}/events?since=${whole.place}`);
    stream.addEventListener("rows", (event) => {
      const rows = /** @type {Record<string, unknown>[]} */ (JSON.parse(event.data));
      rows.forEach(add);
      soon();
    });
    stream.addEventListener("anew", () => {
      whole.curves = {};
      whole.over = [];
    });
    stream.addEventListener("state", (event) => {
      Object.assign(whole, JSON.parse(event.data));
      if (whole.state === "finished") return void attempt(reload);
      heading();
      alarmList();
    });
  }

  async function reload() {
    whole = await call("GET", path);
    stream?.close();
    all();
    await shown.refresh();
  }

  /** @param {Record<string, unknown>} row */
  function add(row) {
    const { stage, step } = row;
    const of = (whole.curves[String(stage)] ??= {});
    const own = new Set(["stage", "step", "event", "time", "seconds"]);
    for (const [key, value] of Object.entries(row)) {
      if (!own.has(key) && typeof value === "number") (of[key] ??= []).push([Number(step), value]);
    }
    if (typeof row["objective/kl"] === "number" && typeof row["objective/scores"] === "number") {
      whole.over.push({ step: Number(step), sqrt_kl: Math.sqrt(Math.max(row["objective/kl"], 0)), reward: row["objective/scores"],
        ...(typeof row["gold/mean"] === "number" ? { gold: row["gold/mean"] } : {}) });
    }
    whole.stage = String(stage);
    whole.step = Number(step);
  }

  function soon() {
    if (timer) return;
    timer = setTimeout(() => {
      timer = 0;
      heading();
      draw();
      void shown.refresh().catch(() => undefined);
    }, DRAW_EVERY);
  }
}

/** The sentence of an alarm in the page's language. @param {Alarm} alarm @returns {string} */
function alarmText(alarm) {
  const key = `alarm.${alarm.kind}`;
  /** @type {Record<string, string | number>} */
  const numbers = {};
  for (const [name, value] of Object.entries(alarm.numbers)) {
    numbers[name] = /share|accuracy/.test(name) ? number(value, { style: "percent", maximumFractionDigits: 0 }) : short(value);
  }
  const said = t(key, numbers);
  return said === key ? alarm.sentence : said;
}

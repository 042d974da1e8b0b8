/**
 * The annotator's page: an item, its answer by one key, and on to the next at once.
 *
 * Nothing here waits for the network. A vote goes into the outbox and the next offer, fetched before, is
 * painted in the same turn; "answered-to-painted" measures of the Performance API say how long that took.
 */

import { call, entered, me as whoAmI, Problem } from "./api.js";
import { compare } from "./ask/compare.js";
import { edit } from "./ask/edit.js";
import { keyButton, promptCard } from "./ask/parts.js";
import { rank } from "./ask/rank.js";
import { score } from "./ask/score.js";
import { words } from "./ask/words.js";
import { Desk } from "./desk.js";
import { header, say, tell } from "./frame.js";
import { byId, h, put } from "./h.js";
import { lang, speak, t } from "./i18n.js";
import { isNotOurs, keyOf, Keys } from "./keys.js";
import { Outbox } from "./outbox.js";
import { flag, guidelines, keysPanel } from "./panels.js";
import { idle, Standing, unsavedBanner } from "./standing.js";
import { Tabs } from "./tabs.js";
import { Watch } from "./watch.js";

/** @typedef {import("./api.js").Offer} Offer */

const ASKS = { compare, score, rank, words, edit };
const LOCK = 250; // ms after an item appears in which nothing counts as its answer
const DEEP = 50; // answers that can be taken back without the server's memory
const CONTROLS = "button, input, select, textarea, [tabindex='0']";

class Work {
  /**
   * @param {import("./api.js").Me} me
   * @param {Outbox} outbox
   * @param {Tabs} tabs
   */
  constructor(me, outbox, tabs) {
    this.me = me;
    this.outbox = outbox;
    this.keys = new Keys(me.keys, me.letters);
    this.desk = new Desk(outbox, tabs, me.settings.prefetch);
    this.watch = new Watch();
    this.standing = new Standing(me, outbox, (fresh) => this.settle(fresh));
    /** @type {{offer: Offer, key: string}[]} */
    this.history = [];
    /** What is half done, by offer. @type {Map<string, Record<string, any>>} */
    this.states = new Map();
    /** @type {import("./ask/parts.js").View | null} */
    this.view = null;
    /** @type {string | undefined} */
    this.shownKey = undefined;
    this.lockedUntil = 0;
    this.touched = 0; // when the key or button was pressed

    this.question = h("h1", { id: "question", tabindex: "-1" });
    this.stage = h("div", { class: "stack" });
    this.bar = h("div", {});
    this.main = h("main", { id: "main", class: "page work" },
      h("header", {}, this.question, this.standing.element), this.stage);
    this.footer = h("footer", { class: "votes" }, this.bar);
  }

  start() {
    put(byId("app"), this.main, this.footer);
    this.drawHeader();
    this.show();
    this.desk.addEventListener("changed", () => {
      if (this.shownKey === undefined || this.desk.current?.key !== this.shownKey) this.show();
    });
    this.outbox.addEventListener("refused", (event) => {
      const { key } = Reflect.get(event, "detail");
      this.history = this.history.filter((one) => one.key !== key);
    });
    addEventListener("plaudit-lang", () => {
      this.drawHeader();
      this.standing.draw();
      this.again();
    });
    const touch = (/** @type {Event} */ event) => (this.touched = event.timeStamp);
    addEventListener("keydown", touch, { capture: true });
    addEventListener("click", touch, { capture: true });
    document.addEventListener("keydown", (event) => {
      if (isNotOurs(event) || document.querySelector("dialog[open]")) return;
      if (this.press(event)) event.preventDefault();
    });
    addEventListener("beforeunload", (event) => {
      const { outbox } = this;
      const isLate = outbox.failed > 0 || outbox.age > 2 || !outbox.shelf.isKept;
      if (outbox.waiting.length && isLate) event.preventDefault();
    });
    void this.desk.fill();
  }

  drawHeader() {
    document.title = t("work.page");
    const mayLeave = async () => {
      if (this.outbox.waiting.length) await this.outbox.hurry();
      const n = this.outbox.waiting.length;
      const leaves = n === 0 || confirm(t("work.leave_unsaved", { n }));
      if (leaves) await this.desk.clear();
      return leaves;
    };
    header(this.me, "work", mayLeave);
  }

  /** What an admin changed while we were at work. @param {import("./api.js").Me} fresh */
  settle(fresh) {
    this.me = { ...this.me, settings: fresh.settings, progress: fresh.progress };
    this.desk.prefetch = fresh.settings.prefetch;
  }

  /**
   * Paint the offer at hand as a new one.
   * @param {string} [said] what was done to the one before, for screen readers
   */
  show(said = "") {
    this.draw();
    const offer = this.desk.current;
    this.lockedUntil = performance.now() + LOCK;
    this.watch.restart();
    scrollTo(0, 0);
    const touch = matchMedia("(hover: none) and (pointer: coarse)").matches; // no keyboard pops up
    ((!touch && this.view?.focus) || this.question).focus({ preventScroll: true });
    const question = this.question.textContent ?? "";
    say([said, offer ? t("work.next", { question }) : question].filter(Boolean).join(" · "));
    if (offer) void this.recallDraft(offer);
  }

  /** Paint the same offer again, and leave the focus where it was. */
  again() {
    const at = [...document.querySelectorAll(CONTROLS)].indexOf(document.activeElement ?? document.body);
    this.draw();
    const same = [...document.querySelectorAll(CONTROLS)][at];
    const next = this.view?.focus ?? (at >= 0 && same instanceof HTMLElement ? same : this.question);
    next.focus({ preventScroll: true });
  }

  draw() {
    const offer = this.desk.current;
    this.shownKey = offer?.key;
    this.view = offer ? ASKS[offer.ask](this.tools(offer)) : null;
    if (offer && this.view) {
      put(this.question, t(`ask.${offer.ask}`));
      put(this.stage, promptCard(offer), this.view.body);
    } else {
      put(this.question, t(this.desk.idle === "loading" ? "work.loading" : "way.work"));
      put(this.stage, idle(this.desk, () => void this.desk.fill()));
    }
    put(this.bar, this.view?.choices, this.aside(offer));
  }

  /**
   * @param {Offer} offer
   * @returns {import("./ask/parts.js").Desk}
   */
  tools(offer) {
    const state = this.states.get(offer.key) ?? {};
    this.states.set(offer.key, state);
    return {
      offer, state, keys: this.keys, strength: this.me.settings.strength,
      vote: (kind, value, said) => this.vote(offer, kind, value, said),
      again: () => this.again(),
      draft: (text) => this.keepDraft(offer.key, text),
    };
  }

  /**
   * @param {Offer | undefined} offer
   * @returns {HTMLElement}
   */
  aside(offer) {
    const button = (/** @type {string} */ action) =>
      keyButton(t(`action.${action}`), this.keys.hint(action), () => void this.act(action), {
        class: "quiet", "data-act": action });
    const differs = offer?.ask === "compare" || offer?.ask === "edit";
    const films = this.view?.clips?.length ? ["play", "restart", "back", "on"] : [];
    return h("div", { class: "aside" },
      h("div", {}, (offer ? ["skip", "flag", "undo"] : ["undo"]).map(button)),
      h("div", {}, [...films, ...(differs ? ["diff"] : []), "guidelines", "keys"].map(button)));
  }

  /**
   * @param {Offer} offer
   * @param {string} kind
   * @param {Record<string, unknown>} value
   * @param {string} said
   */
  vote(offer, kind, value, said) {
    if (performance.now() < this.lockedUntil || offer.key !== this.desk.current?.key) return;
    const { key } = this.cast(offer, kind, value);
    this.history.push({ offer, key });
    if (this.history.length > DEEP) this.states.delete(this.history.shift()?.offer.key ?? "");
    this.keepDraft(offer.key, null);
    this.desk.next();
    if (kind !== "skip" && kind !== "flag") this.standing.count(1);
    this.show(said);
    this.measure();
  }

  /**
   * Into the outbox; sent from there once the browser has written it down.
   * @param {Offer} offer
   * @param {string} kind
   * @param {Record<string, unknown>} value
   */
  cast(offer, kind, value) {
    const cast = this.outbox.cast({ offer: offer.key, kind, value, ...this.watch.read() });
    cast.written.catch(() => undefined); // the outbox tries again by itself
    return cast;
  }

  async undo() {
    const last = this.history.pop();
    if (last) {
      this.cast(last.offer, "undo", { vote: last.key });
      const claimed = this.desk.again(last.offer);
      this.standing.refreshSoon();
      this.show(t("work.undone"));
      return claimed;
    }
    await this.outbox.hurry(); // older ones: from before a reload, or from another device
    if (this.outbox.waiting.length) return tell(t("work.undo_later"), "warn");
    try {
      const { undone, offer } = await call("POST", "undo");
      if (!undone) return tell(t("work.nothing_to_undo"));
      if (offer) await this.desk.again(offer);
      this.standing.refreshSoon();
      this.show(t("work.undone"));
    } catch (problem) {
      tell(problem instanceof Problem ? problem.message : String(problem), "bad");
    }
  }

  /**
   * @param {KeyboardEvent} event
   * @returns {boolean} whether the press was for us
   */
  press(event) {
    const key = keyOf(event);
    const target = event.target;
    if (key === "Enter" && target instanceof Element && target.closest("button, a")) return false;
    if (this.view?.press?.(key)) return true;
    const digit = this.keys.digitOf(event);
    if (digit && this.view?.digit?.(digit)) return true;
    const action = this.keys.actionOf(event);
    return action !== null && this.act(action);
  }

  /**
   * @param {string} action
   * @returns {boolean}
   */
  act(action) {
    const offer = this.desk.current;
    if (this.view?.act?.(action)) return true;
    const clips = this.view?.clips ?? [];
    /** @type {Record<string, () => unknown>} */
    const common = {
      undo: () => this.undo(),
      guidelines: () => guidelines(this.me.settings.guidelines),
      keys: () => keysPanel(this.keys, () => this.again()),
      ...(offer && {
        skip: () => this.vote(offer, "skip", {}, t("action.skip")),
        flag: () => flag((text) => this.vote(offer, "flag", { text }, t("flag.sent"))),
      }),
      ...(clips.length && {
        play: () => clips.forEach((clip) => clip.play()),
        restart: () => clips.forEach((clip) => clip.restart()),
        back: () => clips.forEach((clip) => clip.step(-1)),
        on: () => clips.forEach((clip) => clip.step(1)),
      }),
    };
    common[action]?.();
    return action in common;
  }

  /**
   * @param {string} key of the offer
   * @param {string | null} text
   */
  keepDraft(key, text) {
    if (text === null) this.desk.drafted.delete(key);
    else this.desk.drafted.add(key);
    this.outbox.shelf.setDraft(key, text ?? undefined).catch(() => undefined);
  }

  /** @param {Offer} offer */
  async recallDraft(offer) {
    if (offer.ask !== "words" && offer.ask !== "edit") return;
    const text = await this.outbox.shelf.draft(offer.key).catch(() => undefined);
    const state = this.states.get(offer.key);
    if (typeof text !== "string" || !state || state.text !== undefined) return;
    state.text = text;
    this.desk.drafted.add(offer.key);
    if (this.shownKey === offer.key) this.again();
  }

  /** From the press to what it brought on the screen. */
  measure() {
    const start = this.touched;
    requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel(); // the first task after the frame was painted
      port1.onmessage = () => {
        performance.measure("answered-to-painted", { start, end: performance.now() });
        port1.close();
      };
      port2.postMessage(null);
    });
  }
}

async function start() {
  let me;
  try {
    me = await whoAmI();
  } catch (problem) {
    await speak(lang());
    header(null);
    put(byId("app"), h("main", { id: "main", class: "page" }, h("h1", {}, String(problem))));
    setTimeout(() => location.reload(), 5000);
    return;
  }
  entered(me !== null);
  if (!me) return location.replace("/join");
  await speak(me.lang === "zh" ? "zh" : "en");
  const tabs = new Tabs(me.name);
  const outbox = await Outbox.open(me.name, tabs);
  const work = new Work(me, outbox, tabs);
  tabs.onsaid = (said) => {
    if (said.kind === "answered") work.desk.answeredElsewhere(said.offers);
    else if (said.kind === "outbox") void outbox.read();
    else if (tabs.mustStop(said)) stop();
  };
  tabs.takeOver();
  unsavedBanner(outbox);
  work.start();
}

/** Another tab works now, and this browser cannot share the work between two. */
function stop() {
  addEventListener("keydown", (event) => event.stopImmediatePropagation(), { capture: true });
  put(byId("app"), h("main", { id: "main", class: "page idle" },
    h("h1", {}, t("work.other_tab")), h("p", {}, t("work.other_tab.more")),
    h("button", { class: "primary", onclick: () => location.reload() }, t("work.here"))));
}

void start();

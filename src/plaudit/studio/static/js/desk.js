/**
 * The offers at hand: the one that is shown and the next few, fetched before they are needed.
 *
 * Offers are leases. When the page is closed or loaded again, which browsers do not tell apart, those
 * not yet seen are given back, and the one that was being read stays until its lease runs out: whoever
 * comes back finds it again. Leaving by the button gives back all. A draft keeps its offer. One whose
 * lease ran out while it was being read can still be answered: the server keeps late votes.
 */

import { call, Problem } from "./api.js";

/** @typedef {import("./api.js").Offer} Offer */
/** @typedef {"loading" | "none" | "cut" | "ended" | "refused"} Idle why nothing is at hand */

const MOST = 30; // offers in one request
const LOOK_AGAIN = [3, 5, 10, 20]; // seconds between looks while nothing is open, or no network

export class Desk extends EventTarget {
  /**
   * @param {import("./outbox.js").Outbox} outbox
   * @param {import("./tabs.js").Tabs} tabs
   * @param {number} prefetch offers beyond the one shown
   */
  constructor(outbox, tabs, prefetch) {
    super();
    this.outbox = outbox;
    this.tabs = tabs;
    this.prefetch = prefetch;
    /** @type {Offer[]} */
    this.offers = [];
    /** Answered in this page or in another tab. @type {Set<string>} */
    this.done = new Set();
    /** Being written: not given back on leaving. @type {Set<string>} */
    this.drafted = new Set();
    /** @type {Idle} */
    this.idle = "loading";
    this.sentence = "";
    /** @type {Promise<void> | null} */
    this.filling = null;
    this.looks = 0;
    this.timer = 0;
    this.watchLeaving();
  }

  /** @returns {Offer | undefined} */
  get current() {
    return this.offers[0];
  }

  /** The one that is shown is answered: on to the next. */
  next() {
    const gone = this.offers.shift();
    if (!gone) return;
    this.done.add(gone.key);
    this.tabs.tell({ kind: "answered", offers: [gone.key] });
    this.tabs.drop(gone.key);
    this.fill();
  }

  /**
   * An offer whose answer was taken back comes first again.
   * @param {Offer} offer
   */
  async again(offer) {
    this.done.delete(offer.key);
    if (this.offers.some((one) => one.key === offer.key)) return;
    this.offers.unshift(offer);
    await this.tabs.claim(offer.key);
  }

  /**
   * Other tabs have answered these.
   * @param {string[]} keys
   */
  answeredElsewhere(keys) {
    for (const key of keys) this.done.add(key);
    const before = this.current;
    this.offers = this.offers.filter((offer) => !this.done.has(offer.key));
    if (this.current !== before) this.changed();
  }

  /** Fetch until enough are at hand. @returns {Promise<void>} */
  fill() {
    clearTimeout(this.timer);
    if (this.offers.length > this.prefetch || this.idle === "ended") return Promise.resolve();
    this.filling ??= this.fetchMore().finally(() => {
      this.filling = null;
      if (!this.current && this.idle !== "ended") this.lookAgain();
    });
    return this.filling;
  }

  lookAgain() {
    const seconds = LOOK_AGAIN[Math.min(this.looks++, LOOK_AGAIN.length - 1)] ?? 20;
    this.timer = setTimeout(() => this.fill(), seconds * 1000);
  }

  /** @returns {Promise<void>} */
  async fetchMore() {
    const unsent = this.outbox.answered; // as of now: they may be saved before the answer is here
    const wanted = this.prefetch + 1 + unsent.size + (await this.tabs.heldElsewhere());
    const hadNone = !this.current;
    try {
      const sent = await call("POST", "offers", { n: Math.min(MOST, wanted) });
      await this.take(sent.offers, unsent);
      if (this.outbox.failed) void this.outbox.hurry(); // the server is back
      this.idle = sent.open && !sent.offers.length ? "loading" : "none";
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.sentence = problem.message;
      if (problem.status === 401) return this.end();
      this.idle = problem.passes ? "cut" : "refused";
    }
    if (this.current) this.looks = 0;
    if (hadNone) this.changed();
  }

  /**
   * @param {Offer[]} offers
   * @param {Set<string>} answered in the outbox when they were asked for
   */
  async take(offers, answered) {
    const since = this.outbox.answered;
    for (const offer of offers) {
      if ([this.done, answered, since].some((keys) => keys.has(offer.key))) continue;
      if (this.offers.some((one) => one.key === offer.key)) continue;
      if (!(await this.tabs.claim(offer.key))) continue;
      if (!this.done.has(offer.key)) this.offers.push(offer);
    }
  }

  /** The session has ended: what was at hand belongs to whoever enters next. */
  end() {
    this.idle = "ended";
    for (const { key } of this.offers) this.tabs.drop(key);
    this.offers = [];
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("changed"));
  }

  /** Give back what is not answered when the page is left, and start anew when it is come back to. */
  watchLeaving() {
    addEventListener("pagehide", () => this.release(this.offers.slice(1)));
    addEventListener("pageshow", (event) => event.persisted && location.reload());
    addEventListener("online", () => this.fill());
    this.outbox.addEventListener("ended", () => this.end());
    this.outbox.addEventListener("saved", () => this.current || this.fill());
    document.addEventListener("visibilitychange", () => document.hidden || this.refresh());
  }

  /** Come back after a long absence: what others may have by now is fetched anew. */
  refresh() {
    const now = Date.now() / 1000;
    const isFresh = (/** @type {Offer} */ offer) =>
      offer.expires > now || this.drafted.has(offer.key);
    const before = this.current;
    for (const offer of this.offers) if (!isFresh(offer)) this.tabs.drop(offer.key);
    this.offers = this.offers.filter(isFresh);
    if (this.current !== before) this.changed();
    this.fill();
  }

  /** @param {Offer[]} offers */
  release(offers) {
    for (const { key } of offers) {
      if (this.drafted.has(key)) continue;
      call("POST", `offers/${encodeURIComponent(key)}/release`, { why: "left" }, { keepalive: true })
        .catch(() => undefined); // the lease ends by itself
    }
  }

  /** Give back all: somebody leaves for good. */
  async clear() {
    const offers = this.offers;
    this.offers = [];
    const keys = offers.map(({ key }) => `offers/${encodeURIComponent(key)}/release`);
    await Promise.allSettled(keys.map((path) => call("POST", path, { why: "left" }, { timeout: 3000 })));
  }
}

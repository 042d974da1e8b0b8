/**
 * Votes on their way: written down in this browser first, sent in order, dropped once the server has
 * acknowledged each by its own key.
 *
 * Sending again is harmless, since a vote sent twice under one key is one vote. One tab sends at a time.
 * What the server cannot read is put aside with its sentence, so that it never blocks what comes after.
 */

import { call, newKey, Problem } from "./api.js";
import { openShelf } from "./shelf.js";

/** @typedef {import("./shelf.js").Entry} Entry */

const BATCH = 50;
const UNREADABLE = new Set([400, 413, 422]);
const LONGEST_WAIT = 20; // seconds between two attempts
const KEEPALIVE_BYTES = 60_000; // browsers allow 64 kB to outlive the page

export class Outbox extends EventTarget {
  /**
   * @param {string} who
   * @param {import("./shelf.js").Shelf} shelf
   * @param {import("./tabs.js").Tabs} tabs
   */
  constructor(who, shelf, tabs) {
    super();
    this.who = who;
    this.shelf = shelf;
    this.tabs = tabs;
    /** What is not yet acknowledged, in order, from all tabs. @type {Entry[]} */
    this.entries = [];
    this.failed = 0; // attempts in a row
    this.asked = 0; // seconds that the server asked us to wait
    this.numForeign = 0;
    /** @type {Promise<void> | null} */
    this.sending = null;
    this.hasEnded = false; // the session has; nothing is sent until somebody enters
    this.timer = 0;
  }

  /**
   * @param {string} who
   * @param {import("./tabs.js").Tabs} tabs
   */
  static async open(who, tabs) {
    const outbox = new Outbox(who, await openShelf(), tabs);
    await outbox.read();
    addEventListener("online", () => outbox.hurry());
    document.addEventListener("visibilitychange", () => document.hidden || outbox.hurry());
    outbox.hurry();
    return outbox;
  }

  /** Read what the shelf holds; what could only be kept in memory stays in the list. */
  async read() {
    const all = await this.shelf.all();
    const stored = new Set(all.map((entry) => entry.key));
    const loose = this.entries.filter((entry) => entry.id === undefined && !stored.has(entry.key));
    this.entries = [...all.filter((entry) => entry.who === this.who), ...loose];
    this.numForeign = all.filter((entry) => entry.who !== this.who).length;
    this.changed();
  }

  /** @returns {Entry[]} unsaved and not refused */
  get waiting() {
    return this.entries.filter((entry) => !entry.refused);
  }

  /** Seconds for which the oldest vote has been waiting. */
  get age() {
    const oldest = this.waiting[0];
    return oldest ? (Date.now() - oldest.at) / 1000 : 0;
  }

  /** Offers that are answered by what is not yet sent. @returns {Set<string>} */
  get answered() {
    /** @type {Map<string, string>} */
    const offerOf = new Map();
    for (const entry of this.entries) {
      if (entry.kind === "undo") offerOf.delete(String(entry.value.vote));
      else offerOf.set(entry.key, entry.offer);
    }
    return new Set(offerOf.values());
  }

  /**
   * Cast a vote. It counts as cast at once; the promise is kept once the browser has written it down.
   * @param {{offer: string, kind: string, value: Record<string, unknown>, seconds: number,
   *   visible_seconds: number}} vote
   * @returns {{key: string, written: Promise<void>}}
   */
  cast(vote) {
    /** @type {Entry} */
    const entry = { ...vote, who: this.who, key: newKey(), at: Date.now() };
    this.entries.push(entry);
    const written = this.shelf.add({ ...entry }).then(
      (id) => {
        entry.id = id;
        this.tabs.tell({ kind: "outbox" });
      },
      () => undefined, // a full disk: it is in memory and will be sent from there
    );
    this.changed();
    return { key: entry.key, written: written.then(() => void this.hurry()) };
  }

  /** Try now, whatever the wait was. @returns {Promise<void>} */
  hurry() {
    clearTimeout(this.timer);
    this.sending ??= this.tabs
      .alone("send", () => this.sendAll())
      .finally(() => {
        this.sending = null;
        if (this.waiting.length && !this.hasEnded) this.timer = setTimeout(() => this.hurry(), this.wait());
      });
    return this.sending;
  }

  /** Milliseconds until the next attempt: doubled each time, and never two tabs at the same moment. */
  wait() {
    const seconds = Math.min(LONGEST_WAIT, 0.5 * 2 ** Math.min(this.failed, 10));
    return 1000 * Math.max(this.asked, this.failed ? seconds * (0.75 + Math.random() / 2) : 0);
  }

  /** @returns {Promise<void>} */
  async sendAll() {
    await this.read();
    let batch = this.waiting.slice(0, BATCH);
    while (batch.length && !this.hasEnded) {
      try {
        await this.send(batch);
        this.failed = 0;
        this.asked = 0;
      } catch (problem) {
        if (!(problem instanceof Problem)) throw problem;
        if (problem.status === 401) {
          this.hasEnded = true;
          this.dispatchEvent(new Event("ended"));
        }
        if (UNREADABLE.has(problem.status) && batch[0]) {
          if (batch.length === 1) await this.putAside(batch[0], problem.message);
          batch = this.waiting.slice(0, 1); // one of several is unreadable: find it
          continue;
        }
        this.failed += 1;
        this.asked = problem.wait;
        this.changed();
        return;
      }
      batch = this.waiting.slice(0, BATCH);
    }
  }

  /** @param {Entry[]} batch */
  async send(batch) {
    const votes = batch.map(({ key, offer, kind, value, seconds, visible_seconds }) => ({
      key, offer, kind, value, seconds, visible_seconds,
    }));
    const keepalive = JSON.stringify(votes).length < KEEPALIVE_BYTES;
    const { results } = await call("POST", "votes", { votes }, { keepalive });
    /** @type {Map<string, {status: string, detail?: string}>} */
    const said = new Map(results.map((/** @type {{key: string}} */ one) => [one.key, one]));
    const done = batch.filter((entry) => said.has(entry.key));
    if (!done.length) throw new Problem(500, "the server named none of the votes");
    for (const entry of done) {
      const result = said.get(entry.key);
      if (result?.status === "refused") await this.putAside(entry, result.detail ?? "");
    }
    const kept = done.filter((entry) => !entry.refused);
    await this.shelf.remove(kept.flatMap((entry) => entry.id ?? []));
    this.entries = this.entries.filter((entry) => !kept.some((one) => one.key === entry.key));
    this.tabs.tell({ kind: "outbox" });
    this.changed();
    this.dispatchEvent(new CustomEvent("saved", { detail: kept.length }));
  }

  /**
   * @param {Entry} entry
   * @param {string} sentence
   */
  async putAside(entry, sentence) {
    entry.refused = sentence || "?";
    if (entry.id !== undefined) await this.shelf.change({ ...entry });
    this.dispatchEvent(new CustomEvent("refused", { detail: entry }));
  }

  /** Forget what the server refused, after somebody has read why. @param {Entry} entry */
  async forget(entry) {
    this.entries = this.entries.filter((one) => one.key !== entry.key);
    if (entry.id !== undefined) await this.shelf.remove([entry.id]);
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("changed"));
  }
}

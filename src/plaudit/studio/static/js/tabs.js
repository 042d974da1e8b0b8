/**
 * Several tabs of one person: who holds which offer, who sends, and what all should hear.
 *
 * By Web Locks, which the browser itself drops when a tab ends. On a page without them (plain HTTP
 * from another machine is no secure context) one tab works at a time: the newest.
 */

/** @typedef {{kind: "answered", offers: string[]} | {kind: "outbox"} | {kind: "here", tab: string}} Said */

const tab = Math.random().toString(36).slice(2);
const hasLocks = () => typeof navigator.locks?.request === "function";

export class Tabs {
  /** @param {string} who */
  constructor(who) {
    this.who = who;
    this.channel = typeof BroadcastChannel === "function" ? new BroadcastChannel(`plaudit-${who}`) : null;
    /** @type {Map<string, () => void>} */
    this.held = new Map();
    /** @type {(said: Said) => void} */
    this.onsaid = () => undefined;
    this.channel?.addEventListener("message", (event) => this.onsaid(event.data));
  }

  /** Say to other tabs that this one works now; they have to stop where there are no locks. */
  takeOver() {
    if (!hasLocks()) this.tell({ kind: "here", tab });
  }

  /** @param {Said} said */
  mustStop(said) {
    return said.kind === "here" && said.tab !== tab && !hasLocks();
  }

  /** @param {Said} said */
  tell(said) {
    this.channel?.postMessage(said);
  }

  /**
   * Take an offer for this tab, unless another has it.
   * @param {string} key
   * @returns {Promise<boolean>}
   */
  claim(key) {
    if (!hasLocks() || this.held.has(key)) return Promise.resolve(true);
    return new Promise((decide) => {
      const hold = (/** @type {Lock | null} */ lock) => {
        decide(lock !== null);
        return lock && new Promise((/** @type {(value?: unknown) => void} */ end) => this.held.set(key, end));
      };
      navigator.locks.request(this.lockName(key), { ifAvailable: true }, hold).catch(() => decide(true));
    });
  }

  /** @param {string} key */
  drop(key) {
    this.held.get(key)?.();
    this.held.delete(key);
  }

  /**
   * How many offers other tabs hold.
   * @returns {Promise<number>}
   */
  async heldElsewhere() {
    if (!hasLocks()) return 0;
    const { held = [] } = await navigator.locks.query();
    const all = held.filter((lock) => lock.name?.startsWith(this.lockName("")));
    return Math.max(0, all.length - this.held.size);
  }

  /**
   * Do something that only one tab may do at a time.
   * @template T
   * @param {string} name
   * @param {() => Promise<T>} act
   * @returns {Promise<T>}
   */
  alone(name, act) {
    return hasLocks() ? navigator.locks.request(`plaudit-${name}-${this.who}`, act) : act();
  }

  /** @param {string} key */
  lockName(key) {
    return `plaudit-offer-${this.who}-${key}`;
  }
}

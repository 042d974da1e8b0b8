/**
 * How long somebody looked at an item: by the clock, and while the page was in view.
 */

export class Watch {
  constructor() {
    this.begun = 0;
    this.seen = 0;
    /** @type {number | null} */
    this.since = null;
    document.addEventListener("visibilitychange", () => this.turn(!document.hidden));
    this.restart();
  }

  restart() {
    this.begun = performance.now();
    this.seen = 0;
    this.since = document.hidden ? null : this.begun;
  }

  /** @param {boolean} visible */
  turn(visible) {
    const now = performance.now();
    if (this.since !== null) this.seen += now - this.since;
    this.since = visible ? now : null;
  }

  /** @returns {{seconds: number, visible_seconds: number}} rounded to milliseconds */
  read() {
    const now = performance.now();
    const seen = this.seen + (this.since === null ? 0 : now - this.since);
    return { seconds: round(now - this.begun), visible_seconds: round(seen) };
  }
}

/**
 * @param {number} milliseconds
 * @returns {number}
 */
function round(milliseconds) {
  return Math.round(milliseconds) / 1000;
}

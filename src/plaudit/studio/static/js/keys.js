/**
 * Which key stands for which act, and which key presses are none of ours.
 *
 * Ours never are: repeats of a held key, keys pressed while Chinese is being composed, anything with
 * Ctrl, Alt or Meta, anything typed into a field, arrows of whatever owns them (a slider, a region that
 * scrolls), and Space, up, down, Tab, Enter and Escape, which belong to the browser.
 * Letters, digits and signs can be switched off (WCAG 2.1.4); arrows stay.
 */

/** @typedef {Record<string, string>} KeyMap key by action */

/** @type {KeyMap} */
export const DEFAULTS = {
  first: "ArrowLeft", second: "ArrowRight", tie: "t", both_bad: "b", skip: "s", flag: "f", undo: "u",
  diff: "d", guidelines: "g", keys: "?", play: "p", restart: "r", back: ",", on: ".",
};

/** Never given to an action: the browser's own keys, and those that mean a number or a tie in place. */
const KEPT = /^(?: |Arrow(?:Up|Down)|Page(?:Up|Down)|Home|End|Tab|Enter|Escape|Process|Unidentified|Dead|F\d+|[0-9=]|Shift|Control|Alt|Meta|CapsLock)$/;
const FIELDS = "input, textarea, select, [contenteditable]";

const SIGNS = /** @type {Record<string, string>} */ ({
  ArrowLeft: "←", ArrowRight: "→", Backspace: "⌫", Delete: "⌦", Enter: "↵", " ": "Space",
});

/**
 * How a key is printed on a button.
 * @param {string} key
 * @returns {string}
 */
export function printed(key) {
  return SIGNS[key] ?? (key.length === 1 ? key.toUpperCase() : key);
}

/**
 * @param {string} key
 * @returns {boolean}
 */
export function isKept(key) {
  return KEPT.test(key);
}

/**
 * The key of an event: small letters, and the letter's place where the layout has no Latin ones.
 * @param {KeyboardEvent} event
 * @returns {string}
 */
export function keyOf(event) {
  const { key, code } = event;
  if (key.length !== 1) return key;
  if (key > "~" && /^Key[A-Z]$/.test(code)) return code.slice(3).toLowerCase();
  return key.toLowerCase();
}

/**
 * Whether a press is meant for somebody else.
 * @param {KeyboardEvent} event
 * @returns {boolean}
 */
export function isNotOurs(event) {
  if (event.defaultPrevented || event.repeat || event.isComposing || event.keyCode === 229) return true;
  if (event.ctrlKey || event.altKey || event.metaKey) return true;
  const target = event.target;
  if (!(target instanceof Element)) return false;
  if (target.closest(FIELDS)) return true;
  return event.key.startsWith("Arrow") && target.closest("[data-own-keys]") !== null;
}

export class Keys {
  /**
   * @param {KeyMap} own what this person changed
   * @param {boolean} letters whether letters, digits and signs work
   */
  constructor(own, letters) {
    this.own = { ...own };
    this.letters = letters;
  }

  /** @returns {KeyMap} */
  get all() {
    return { ...DEFAULTS, ...this.own };
  }

  /**
   * The action of a press, or null.
   * @param {KeyboardEvent} event
   * @returns {string | null}
   */
  actionOf(event) {
    const key = keyOf(event);
    if (key.length === 1 && !this.letters) return null;
    for (const [action, its] of Object.entries(this.all)) if (its === key) return action;
    return null;
  }

  /**
   * A digit from 1 to 9, or null; also from layouts where digits need Shift.
   * @param {KeyboardEvent} event
   * @returns {number | null}
   */
  digitOf(event) {
    if (!this.letters) return null;
    if (/^[1-9]$/.test(event.key)) return Number(event.key);
    const place = /^Digit([1-9])$/.exec(event.code);
    return place && !event.shiftKey && this.actionOf(event) === null ? Number(place[1]) : null;
  }

  /**
   * What is printed on the button of an action; nothing where its key is switched off.
   * @param {string} action
   * @returns {string}
   */
  hint(action) {
    const key = this.all[action] ?? "";
    return key.length === 1 && !this.letters ? "" : printed(key);
  }

  /**
   * Give an action another key.
   * @param {string} action
   * @param {string} key
   * @returns {string | null} the action that has this key already
   */
  change(action, key) {
    const taken = Object.entries(this.all).find(([other, its]) => its === key && other !== action);
    if (taken) return taken[0];
    this.own[action] = key;
    if (DEFAULTS[action] === key) delete this.own[action];
    return null;
  }
}

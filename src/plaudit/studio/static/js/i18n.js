/**
 * Words of the pages in English and Chinese.
 *
 * A catalogue is a module of one flat object, `words.en.js` and `words.zh.js`, with the same keys in
 * both (a test compares them). `{n}` in a sentence is a value; a key ending in `.one` is taken where n
 * is 1. The admin's pages add catalogues of their own by `learn`.
 */

/** @typedef {"en" | "zh"} Lang */
/** @typedef {Record<string, string>} Words */

/** @type {((lang: Lang) => Promise<Words>)[]} */
const sources = [
  async (lang) => (await (lang === "zh" ? import("./words.zh.js") : import("./words.en.js"))).words,
];
/** @type {Words} */
let known = {};

/** @returns {Lang} */
export function lang() {
  return document.documentElement.lang.startsWith("zh") ? "zh" : "en";
}

/**
 * Load the words of a language and show the page in it; listeners of "plaudit-lang" render anew.
 * @param {Lang} next
 */
export async function speak(next) {
  const parts = await Promise.all(sources.map((source) => source(next)));
  known = Object.assign({}, ...parts);
  document.documentElement.lang = next === "zh" ? "zh-CN" : "en";
  try {
    localStorage.setItem("plaudit-lang", next);
  } catch {
    // not remembered in this browser; the server remembers it for whoever has entered
  }
  dispatchEvent(new CustomEvent("plaudit-lang"));
}

/**
 * Add a catalogue; call it before the first `speak`.
 * @param {(lang: Lang) => Promise<Words>} source
 */
export function learn(source) {
  sources.push(source);
}

/**
 * The sentence of that key. A key nobody wrote shows itself.
 * @param {string} key
 * @param {Record<string, string | number>} [values]
 * @returns {string}
 */
export function t(key, values = {}) {
  const sentence = (values.n === 1 && known[`${key}.one`]) || known[key] || key;
  return sentence.replace(/\{(\w+)\}/g, (whole, name) =>
    name in values ? say(values[name] ?? "") : whole,
  );
}

/**
 * @param {string | number} value
 * @returns {string}
 */
function say(value) {
  return typeof value === "number" ? number(value) : value;
}

/**
 * A number as the language writes it.
 * @param {number} value
 * @param {Intl.NumberFormatOptions} [options]
 * @returns {string}
 */
export function number(value, options) {
  return new Intl.NumberFormat(document.documentElement.lang, options).format(value);
}

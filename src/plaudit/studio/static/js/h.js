/**
 * Elements made by hand: the only way these pages put anything on the screen.
 *
 * Texts become text nodes, so markup in a prompt, an answer or a name is painted as it was written.
 * There is no innerHTML anywhere and no `style` attribute, which the pages' security policy forbids;
 * use `paint()` for the few measures that a script has to compute.
 */

/** @typedef {Node | string | number | null | undefined | false | Piece[]} Piece */

const AS_PROPERTY = new Set(["value", "checked", "disabled", "selected", "open", "hidden", "muted"]);

/**
 * Give an element its attributes; `onclick: f` listens, `class: "a b"` names classes.
 * @param {Element} element
 * @param {Record<string, unknown>} props
 */
function dress(element, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name === "style") throw new Error("no style attributes: name a class, or use paint()");
    if (name.startsWith("on")) {
      element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    } else if (AS_PROPERTY.has(name)) {
      Reflect.set(element, name, value);
    } else if (value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
}

/**
 * @param {Element} parent
 * @param {Piece[]} pieces
 */
function fill(parent, pieces) {
  for (const piece of pieces) {
    if (piece === null || piece === undefined || piece === false) continue;
    if (Array.isArray(piece)) fill(parent, piece);
    else parent.append(typeof piece === "number" ? String(piece) : piece);
  }
}

/**
 * An HTML element: `h("button", {class: "primary", onclick: save}, "Save")`.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [props]
 * @param {...Piece} pieces
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...pieces) {
  const element = document.createElement(tag);
  dress(element, props);
  fill(element, pieces);
  return element;
}

/**
 * An SVG element, by the same rules.
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} [props]
 * @param {...Piece} pieces
 * @returns {SVGElementTagNameMap[K]}
 */
export function s(tag, props = {}, ...pieces) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  dress(element, props);
  fill(element, pieces);
  return element;
}

/**
 * Put these pieces, and nothing else, into an element.
 * @template {Element} E
 * @param {E} parent
 * @param {...Piece} pieces
 * @returns {E}
 */
export function put(parent, ...pieces) {
  parent.replaceChildren();
  fill(parent, pieces);
  return parent;
}

/**
 * Set computed measures by way of the object model, which the security policy allows.
 * @param {HTMLElement | SVGElement} element
 * @param {Record<string, string>} measures custom properties or plain ones
 */
export function paint(element, measures) {
  for (const [name, value] of Object.entries(measures)) element.style.setProperty(name, value);
}

/**
 * The element of that id; the pages' own skeletons hold it.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

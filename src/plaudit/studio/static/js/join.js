/**
 * The door: a link `…/join#token` is exchanged for a session by pressing one button.
 *
 * A press, because programs that look at links before people do would use up what works only once.
 */

import { call, entered, me as whoAmI, Problem } from "./api.js";
import { header } from "./frame.js";
import { byId, h, put } from "./h.js";
import { lang, speak, t } from "./i18n.js";
import { mark } from "./icons.js";

/**
 * The token in a link, or a token alone.
 * @param {string} text
 * @returns {string} empty where there is none
 */
export function tokenIn(text) {
  const found = /^(?:.*#)?([\w-]{16,500})$/.exec(text.trim());
  return found?.[1] ?? "";
}

/** @param {import("./api.js").Me} me */
function goOn(me) {
  location.replace(me.role === "annotator" ? "/" : "/admin");
}

/**
 * @param {string} token
 * @param {HTMLElement} said
 * @param {HTMLButtonElement} button
 */
async function enter(token, said, button) {
  button.disabled = true;
  try {
    const me = await call("POST", "join", { token });
    entered(true);
    history.replaceState(null, "", "/join"); // used up: it need not stay in the address bar
    goOn(me);
  } catch (problem) {
    said.hidden = false;
    put(said, problem instanceof Problem ? problem.message : String(problem));
    button.disabled = false;
  }
}

/** @returns {HTMLElement[]} what is asked of somebody with a link */
function invited() {
  const said = h("p", { class: "notice bad", role: "alert", hidden: true });
  const button = h("button", { class: "primary", type: "button",
    onclick: () => enter(tokenIn(location.hash), said, button) }, t("join.enter"));
  return [h("p", { class: "soft" }, t("join.invited")), said, button];
}

/** @returns {HTMLElement} what is asked of somebody without one */
function uninvited() {
  const said = h("p", { class: "notice bad", role: "alert", hidden: true });
  const field = h("input", { id: "link", type: "text", autocomplete: "off", spellcheck: "false" });
  const button = h("button", { class: "primary", type: "submit" }, t("join.enter"));
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    const token = tokenIn(field.value);
    if (token) return enter(token, said, button);
    said.hidden = false;
    put(said, t("join.no_token"));
    return undefined;
  };
  return h("form", { class: "stack", onsubmit: submit },
    h("p", { class: "soft" }, t("join.no_link")),
    h("div", { class: "field" }, h("label", { for: "link" }, t("join.link")), field), said, button);
}

/** @param {import("./api.js").Me | null} me whoever has entered in this browser already */
function draw(me) {
  document.title = t("join.page");
  header(null);
  put(byId("app"), h("main", { class: "door", id: "main" },
    h("section", { class: "card" }, mark("large"), h("h1", {}, t("join.title")),
      me && h("p", { class: "notice" }, t("join.already", { name: me.name })),
      me && h("a", { class: "button", href: me.role === "annotator" ? "/" : "/admin" },
        t("join.go_on", { name: me.name })),
      tokenIn(location.hash) ? invited() : uninvited())));
}

async function start() {
  await speak(lang());
  draw(null);
  (byId("app").querySelector("input") ?? byId("app").querySelector("button"))?.focus();
  const me = entered() ? await whoAmI().catch(() => null) : null;
  if (me) draw(me);
  else entered(false);
  addEventListener("plaudit-lang", () => draw(me));
  addEventListener("hashchange", () => draw(me));
}

void start();

/**
 * What surrounds every page: the header with its ways, the language, the theme, who has entered; the
 * sentences that float over the page; panels.
 */

import { call, entered, Problem } from "./api.js";
import { byId, h, put } from "./h.js";
import { lang, speak, t } from "./i18n.js";
import { icon, mark } from "./icons.js";
import { setTheme, theme } from "./theme.js";

/** @typedef {import("./api.js").Me} Me */

/** Admins see these beside their own work; viewers too, without the buttons that change something. */
const WAYS = ["people", "data", "quality", "runs", "settings"];
const NEXT_THEME = /** @type {const} */ ({ system: "light", light: "dark", dark: "system" });
const THEME_ICON = { system: "half", light: "sun", dark: "moon" };

/**
 * @param {string} current "work" or the part of /admin that is shown
 * @returns {HTMLElement}
 */
function ways(current) {
  const link = (/** @type {string} */ way, /** @type {string} */ href) =>
    h("a", { href, "aria-current": way === current ? "page" : null }, t(`way.${way}`));
  return h(
    "nav",
    { "aria-label": t("way.all") },
    link("work", "/"),
    WAYS.map((way) => link(way, `/admin#${way}`)),
  );
}

/** @returns {HTMLElement} */
function languageButton() {
  const other = lang() === "zh" ? "en" : "zh";
  const change = async () => {
    await speak(other);
    const again = byId("header").querySelector("button.language"); // listeners have drawn it anew
    if (again instanceof HTMLElement) again.focus();
    await call("PUT", "me", { lang: other }).catch(() => undefined); // nobody entered, or no network
  };
  return h(
    "button",
    { class: "quiet language", onclick: change, lang: other === "zh" ? "zh-CN" : "en",
      "aria-label": other === "zh" ? "中文" : "English" },
    other === "zh" ? "中文" : "EN",
  );
}

/** @returns {HTMLElement} */
function themeButton() {
  const button = h("button", { class: "quiet icon theme" });
  const show = () => {
    const said = t(`theme.${theme()}`);
    button.setAttribute("aria-label", said);
    button.title = said;
    put(button, icon(THEME_ICON[theme()]));
  };
  button.addEventListener("click", () => {
    setTheme(NEXT_THEME[theme()]);
    show();
  });
  show();
  return button;
}

/**
 * Fill the page's #header.
 * @param {Me | null} who
 * @param {string} [current]
 * @param {() => Promise<boolean>} [mayLeave] asked before the session is given up
 */
export function header(who, current = "", mayLeave = async () => true) {
  const leave = async () => {
    if (!(await mayLeave())) return;
    try {
      await call("POST", "leave");
    } catch (problem) {
      if (!(problem instanceof Problem) || problem.status !== 401) return tell(String(problem), "bad");
    }
    entered(false);
    location.assign("/join");
  };
  put(
    byId("header"),
    h("a", { class: "jump", href: "#main" }, t("way.jump")),
    h("a", { class: "brand", href: "/" }, mark(), "Plaudit"),
    who && who.role !== "annotator" && ways(current),
    h(
      "div",
      { class: "tools" },
      languageButton(),
      themeButton(),
      who && h("span", { class: "who", title: who.name }, who.name),
      who &&
        h("button", { class: "quiet icon leave", onclick: leave, "aria-label": t("way.leave"),
          title: t("way.leave") }, icon("leave")),
    ),
  );
}

/**
 * A sentence that floats over the page for a while. Errors are said at once by screen readers.
 * @param {string} sentence
 * @param {"" | "good" | "warn" | "bad"} [kind]
 * @param {number} [seconds] 0 lets it stay until it is closed
 */
export function tell(sentence, kind = "", seconds = kind === "bad" ? 12 : 5) {
  const note = h("div", { class: `notice ${kind}`, role: kind === "bad" ? "alert" : "status" });
  const close = () => note.remove();
  byId("floats").append(note);
  put(note, h("span", {}, sentence), h("button", { onclick: close }, t("say.close")));
  if (seconds) setTimeout(close, seconds * 1000);
}

/**
 * Say something to screen readers only.
 * @param {string} sentence
 */
export function say(sentence) {
  byId("said").textContent = sentence;
}

/**
 * Open a panel over the page; Escape and its button close it, and focus returns to where it was.
 * @param {string} title
 * @param {import("./h.js").Piece} content
 * @param {{sheet?: boolean, closing?: () => void}} [options] sheet: at the right edge, full height
 * @returns {HTMLDialogElement}
 */
export function panel(title, content, { sheet = false, closing } = {}) {
  const before = document.activeElement;
  const close = () => dialog.close();
  const dialog = h(
    "dialog",
    { class: sheet ? "sheet" : null, "aria-labelledby": "panel-title" },
    h(
      "div",
      {},
      h("div", { class: "row apart" },
        h("h2", { id: "panel-title", tabindex: "-1" }, title),
        h("button", { class: "quiet icon", onclick: close, "aria-label": t("say.close") },
          icon("close"))),
      content,
    ),
  );
  dialog.addEventListener("close", () => {
    dialog.remove();
    closing?.();
    if (before instanceof HTMLElement && before.isConnected) before.focus();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) close(); // the ground behind the panel
  });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

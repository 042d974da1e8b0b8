/**
 * The panels of the annotator's page: guidelines, keys and their change, a flag.
 */

import { call } from "./api.js";
import { panel, tell } from "./frame.js";
import { h, put } from "./h.js";
import { t } from "./i18n.js";
import { DEFAULTS, isKept, keyOf, printed } from "./keys.js";
import { prose } from "./text.js";

/** Keys that are no action of their own, with the sentence that says what they do. */
const FIXED = { "1 – 9": "digits", "=": "tie", "↵": "done", "Ctrl ↵": "save", Esc: "leave" };

/** @param {import("./api.js").Token[] | null} tokens */
export function guidelines(tokens) {
  const content = tokens?.length ? prose(tokens) : h("p", { class: "soft" }, t("work.no_guidelines"));
  panel(t("action.guidelines"), content, { sheet: true });
}

/**
 * Why something is flagged; an empty reason is one too.
 * @param {(text: string) => void} send
 */
export function flag(send) {
  const field = h("textarea", { id: "flag-why", dir: "auto" });
  const done = () => {
    dialog.close();
    send(field.value.trim());
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.isComposing) done();
  });
  const dialog = panel(t("flag.title"), [
    h("div", { class: "field" }, h("label", { for: "flag-why" }, t("flag.why")), field),
    h("div", { class: "row" },
      h("button", { class: "primary", onclick: done }, t("flag.send")),
      h("button", { onclick: () => dialog.close() }, t("say.cancel"))),
  ]);
  field.focus();
}

/**
 * All keys, to be read and changed. What is changed is kept on the server, for all of this person's devices.
 * @param {import("./keys.js").Keys} keys
 * @param {() => void} changed the page has to print its keys anew
 */
export function keysPanel(keys, changed) {
  const list = h("dl", { class: "keys" });
  const said = h("p", { class: "small", role: "status" }, t("keys.change"));
  const keep = async () => {
    draw();
    changed();
    try {
      await call("PUT", "me", { keys: keys.own, letters: keys.letters });
    } catch (problem) {
      tell(problem instanceof Error ? problem.message : String(problem), "bad");
    }
  };
  const letters = h("input", { type: "checkbox", checked: keys.letters, id: "letters",
    "aria-describedby": "letters-why",
    onchange: () => {
      keys.letters = letters.checked;
      void keep();
    } });

  /**
   * @param {string} action
   * @param {HTMLButtonElement} button waits for the next key
   */
  const listen = (action, button) => {
    put(button, t("keys.press"));
    const stop = () => {
      button.removeEventListener("keydown", take);
      button.removeEventListener("blur", stop);
      if (button.isConnected) put(button, h("kbd", {}, printed(keys.all[action] ?? "")));
    };
    const take = (/** @type {KeyboardEvent} */ event) => {
      if (event.isComposing || event.repeat || ["Shift", "Tab"].includes(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
      if (event.key === "Escape") return stop();
      const key = keyOf(event);
      if (isKept(key) || event.ctrlKey || event.altKey || event.metaKey) {
        put(said, t("keys.kept", { key: printed(key) }));
        return;
      }
      const taken = keys.change(action, key);
      stop();
      if (taken) put(said, t("keys.taken", { key: printed(key), action: t(`action.${taken}`) }));
      else {
        put(said, t("keys.change"));
        void keep();
        list.querySelector(`[data-action="${action}"]`)?.dispatchEvent(new Event("refocus"));
      }
    };
    button.addEventListener("keydown", take);
    button.addEventListener("blur", stop);
    button.focus();
  };

  const draw = () => {
    const row = (/** @type {string} */ action) => {
      const button = h("button", { type: "button", "data-action": action,
        "aria-label": `${t(`action.${action}`)}: ${printed(keys.all[action] ?? "")}` },
        h("kbd", {}, printed(keys.all[action] ?? "")));
      button.addEventListener("click", () => listen(action, button));
      button.addEventListener("refocus", () => button.focus());
      return [h("dt", {}, t(`action.${action}`)), h("dd", {}, button)];
    };
    put(list, Object.keys(DEFAULTS).map(row),
      Object.entries(FIXED).map(([key, name]) => [
        h("dt", { class: "soft" }, t(`keys.fixed.${name}`)), h("dd", {}, h("kbd", {}, key))]));
  };
  const reset = () => {
    keys.own = {};
    void keep();
  };
  draw();
  panel(t("keys.title"), [
    h("label", { class: "check", for: "letters" }, letters, t("keys.letters")),
    h("p", { class: "small soft", id: "letters-why" }, t("keys.letters_why")),
    said,
    list,
    h("div", { class: "row" }, h("button", { type: "button", onclick: reset }, t("keys.reset"))),
  ], { sheet: true });
}

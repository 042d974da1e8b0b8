/**
 * Settings: how the work is given out, and the guidelines that everybody may read.
 */

import { call, me } from "../api.js";
import { tell } from "../frame.js";
import { h, put } from "../h.js";
import { t } from "../i18n.js";
import { prose } from "../text.js";
import { attempt } from "./main.js";
import { field } from "./parts.js";

/** Numbers among the settings, with their least, their most and their step. */
const NUMBERS = /** @type {const} */ ([
  ["overlap", 1, 100, 1],
  ["repeat_share", 0, 0.5, 0.01],
  ["uniform_share", 0, 1, 0.01],
  ["lease_seconds", 1, 86400, 1],
  ["prefetch", 1, 30, 1],
]);

/**
 * @param {HTMLElement} main
 * @param {import("../api.js").Me} who
 */
export async function settings(main, who) {
  const now = await call("GET", "settings");
  const locked = who.role !== "admin";
  const inputs = NUMBERS.map(([name, min, max, step]) =>
    h("input", { type: "number", min, max, step, required: true, value: String(now[name]), disabled: locked }));
  const strength = h("input", { type: "checkbox", checked: now.strength, disabled: locked });
  const guidelines = h("textarea", { disabled: locked, maxlength: 100000 }, now.guidelines ?? "");
  const preview = h("div", { class: "card prose sunken", hidden: true });
  const save = h("button", { class: "primary", disabled: locked }, t("say.save"));
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    void attempt(async () => {
      const wanted = { ...now, strength: strength.checked, guidelines: guidelines.value.trim() ? guidelines.value : null };
      NUMBERS.forEach(([name], k) => (wanted[name] = Number(inputs[k]?.value)));
      await call("PUT", "settings", wanted);
      tell(t("settings.saved"), "good");
      await show();
    }, save);
  };
  put(main, h("h1", {}, t("settings.title")), h("form", { class: "stack", onsubmit: submit },
    h("section", { class: "card stack" }, h("h2", {}, t("settings.work")),
      h("div", { class: "form" }, NUMBERS.map(([name], k) =>
        field(t(`settings.${name}`), /** @type {HTMLInputElement} */ (inputs[k]), t(`settings.${name}.what`)))),
      h("label", { class: "check" }, strength, t("settings.strength"))),
    h("section", { class: "card stack" }, h("h2", {}, t("settings.guidelines")),
      field(t("settings.guidelines.label"), guidelines, t("settings.guidelines.what")), preview),
    h("div", { class: "row" }, save)));
  await show();

  async function show() {
    const tokens = (await me())?.settings.guidelines ?? null;
    preview.hidden = !tokens;
    if (tokens) put(preview, prose(tokens));
  }
}

/**
 * The answer, corrected: it becomes a demonstration, and a pair with what was there before.
 */

import { differences } from "../diff.js";
import { h, put } from "../h.js";
import { t } from "../i18n.js";
import { tell } from "../frame.js";
import { marked } from "../text.js";
import { keyButton, letter } from "./parts.js";
import { writing } from "./writing.js";

/**
 * @param {import("./parts.js").Desk} desk
 * @returns {import("./parts.js").View}
 */
export function edit(desk) {
  const { offer, state } = desk;
  const at = state.which ?? 0;
  const before = offer.segments[at]?.text.plain ?? "";
  const changes = h("div", { class: "card", hidden: !state.diff });
  const show = () => {
    const found = differences(before, field.value);
    put(changes, h("span", { class: "label" }, t("edit.changes")), found && marked(found[1]));
  };
  const save = () => {
    if (field.value === before || !field.value.trim()) return tell(t("edit.same"), "warn");
    desk.vote("edit", { segment: at, text: field.value }, t("ask.edit"));
  };
  const { element, field } = writing(desk, {
    label: t("edit.label"), start: before, save, changed: () => state.diff && show(),
  });
  if (state.diff) show();

  const choose = (/** @type {number} */ position) => {
    state.which = position;
    state.text = undefined;
    desk.again();
  };
  const which = offer.segments.map((_, i) =>
    h("button", { type: "button", "aria-pressed": String(i === at), onclick: () => choose(i) },
      t("edit.which", { letter: letter(i) })));
  return {
    body: h("div", { class: "stack" }, which.length > 1 && h("div", { class: "row" }, which),
      h("div", { class: "card" }, element), changes),
    choices: h("div", { class: "choices one" }, keyButton(t("say.save"), "Ctrl ↵", save, { class: "primary" })),
    focus: field,
    act: (action) => {
      if (action !== "diff") return false;
      state.diff = !state.diff;
      desk.again();
      return true;
    },
  };
}

/**
 * A field to write in: Ctrl+Enter saves, Escape leaves it so that keys work again, and what was written
 * is kept in this browser until then.
 */

import { h } from "../h.js";

/**
 * @param {import("./parts.js").Desk} desk
 * @param {{label: string, start: string, save: () => void, changed?: (text: string) => void}} options
 * @returns {{element: HTMLElement, field: HTMLTextAreaElement}}
 */
export function writing(desk, { label, start, save, changed }) {
  const field = h("textarea", { id: "writing", dir: "auto", spellcheck: "true" });
  field.value = desk.state.text ?? start;
  field.addEventListener("input", () => {
    desk.state.text = field.value;
    desk.draft(field.value === start ? null : field.value);
    changed?.(field.value);
  });
  field.addEventListener("keydown", (event) => {
    if (event.isComposing || event.keyCode === 229 || event.repeat) return;
    if (event.key === "Escape") {
      event.preventDefault();
      document.getElementById("question")?.focus();
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      save();
    }
  });
  const element = h("div", { class: "field" }, h("label", { for: "writing" }, label), field);
  return { element, field };
}

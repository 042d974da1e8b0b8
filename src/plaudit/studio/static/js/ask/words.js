/**
 * What somebody thinks of an answer, or of all of them, in their own words.
 */

import { h } from "../h.js";
import { t } from "../i18n.js";
import { tell } from "../frame.js";
import { answerCard, answers, keyButton, letter } from "./parts.js";
import { writing } from "./writing.js";

/**
 * @param {import("./parts.js").Desk} desk
 * @returns {import("./parts.js").View}
 */
export function words(desk) {
  const { offer, state } = desk;
  const num = offer.segments.length;
  const parts = offer.segments.map((segment, i) => answerCard(segment, i, num));
  const save = () => {
    const text = field.value.trim();
    if (!text) return tell(t("words.empty"), "warn");
    const about = num === 1 ? 0 : (state.about ?? null);
    desk.vote("words", { segment: about, text }, t("ask.words"));
  };
  const { element, field } = writing(desk, { label: t("words.label"), start: "", save });

  const about = h("select", { id: "about", onchange: () => (state.about = about.value === "" ? null : Number(about.value)) },
    h("option", { value: "" }, t("words.about_all")),
    parts.map((_, i) => h("option", { value: String(i), selected: state.about === i },
      t("work.answer", { letter: letter(i) }))));
  return {
    body: h("div", { class: "stack beside" }, answers(parts.map((part) => part.card)),
      h("div", { class: "card stack" },
        num > 1 && h("div", { class: "row" }, h("label", { for: "about" }, t("words.about")), about),
        element)),
    choices: h("div", { class: "choices one" }, keyButton(t("say.save"), "Ctrl ↵", save, { class: "primary" })),
    focus: field,
    clips: parts.flatMap((part) => part.clip ?? []),
  };
}

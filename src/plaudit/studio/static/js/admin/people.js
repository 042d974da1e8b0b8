/**
 * People: who takes part, links to enter by, pauses, names taken out, tokens for programs.
 */

import { call } from "../api.js";
import { panel } from "../frame.js";
import { h, put } from "../h.js";
import { t } from "../i18n.js";
import { attempt } from "./main.js";
import { copyable, field, select, table, when } from "./parts.js";

/** @typedef {{name: string, role: string, lang: string, paused: boolean, created: number}} Person */

const ROLES = ["annotator", "viewer", "admin"];

/**
 * @param {HTMLElement} main
 * @param {import("../api.js").Me} who
 */
export async function people(main, who) {
  const may = who.role === "admin";
  const list = h("div", {});
  put(main, h("h1", {}, t("people.title")), may ? invitation(() => fill()) : null,
    h("section", { class: "card stack", "aria-label": t("people.title") }, list));
  await fill();

  async function fill() {
    /** @type {{people: Person[]}} */
    const found = await call("GET", "people");
    const titles = [t("people.name"), t("people.role"), t("people.since"), t("people.state")];
    put(list, table(t("people.title"), may ? [...titles, t("people.acts")] : titles, found.people.map((one) => [
      one.name,
      t(`people.role.${one.role}`),
      when(one.created),
      h("span", { class: `badge ${one.paused ? "warn" : "good"}` }, t(one.paused ? "people.paused" : "people.active")),
      ...(may ? [acts(one)] : []),
    ])));
  }

  /** @param {Person} one */
  function acts(one) {
    const self = one.name === who.name;
    const path = `people/${encodeURIComponent(one.name)}`;
    const button = (/** @type {string} */ key, /** @type {() => Promise<unknown>} */ act, more = {}) => {
      const made = h("button", { class: "small quiet", "aria-label": `${t(key)}: ${one.name}`,
        onclick: () => attempt(act, made), ...more }, t(key));
      return made;
    };
    return h("div", { class: "row acts" },
      button("people.link", async () => showLink(one.name, await linkFor(one.name, one.role, 7))),
      self ? null : button(one.paused ? "people.resume" : "people.pause", async () => {
        await call("POST", `${path}/pause`, { paused: !one.paused });
        await fill();
      }),
      button("people.token", async () => {
        const { token } = await call("POST", `${path}/token`);
        panel(t("people.token_for", { name: one.name }), h("div", { class: "stack" },
          h("p", {}, t("people.token_once")), copyable(t("people.token"), token)));
      }),
      self ? null : button("people.erase", async () => confirmErasure(one.name, path)));
  }

  /** @param {string} name @param {string} path */
  function confirmErasure(name, path) {
    const sure = h("button", { class: "danger", onclick: () => attempt(async () => {
      await call("POST", `${path}/erase`);
      box.close();
      await fill();
    }, sure) }, t("people.erase"));
    const box = panel(t("people.erase_title", { name }), h("div", { class: "stack" },
      h("p", {}, t("people.erase_what")), h("div", { class: "row" }, sure)));
  }
}

/** @param {string} name @param {string} role @param {number} days @returns {Promise<string>} */
async function linkFor(name, role, days) {
  const { link } = await call("POST", "invitations", { name, role, days });
  return new URL(link, location.origin).href;
}

/** @param {string} name @param {string} link */
function showLink(name, link) {
  panel(t("people.link_for", { name }), h("div", { class: "stack" },
    h("p", {}, t("people.link_once")), copyable(t("people.the_link"), link)));
}

/** The form that invites. @param {() => Promise<void>} done @returns {HTMLElement} */
function invitation(done) {
  const name = h("input", { required: true, maxlength: 200, autocomplete: "off" });
  const role = select(ROLES.map((one) => [one, t(`people.role.${one}`)]), "annotator");
  const days = h("input", { type: "number", min: 1, max: 365, value: "7", required: true });
  const send = h("button", { class: "primary" }, t("people.invite"));
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    void attempt(async () => {
      const link = await linkFor(name.value.trim(), role.value, Number(days.value));
      await done();
      showLink(name.value.trim(), link);
      name.value = "";
    }, send);
  };
  return h("form", { class: "card form", onsubmit: submit, "aria-label": t("people.invite") },
    field(t("people.name"), name), field(t("people.role"), role), field(t("people.days"), days), send);
}

/**
 * How far one is, alone and together; what is not yet saved; and the page while nothing is at hand.
 */

import { me as whoAmI } from "./api.js";
import { tell } from "./frame.js";
import { byId, h, put } from "./h.js";
import { t } from "./i18n.js";
import { icon } from "./icons.js";

const REFRESH = 10; // seconds between two looks at the joint progress
const PATIENCE = 5; // seconds before an unsaved vote is worth a banner

export class Standing {
  /**
   * @param {import("./api.js").Me} me
   * @param {import("./outbox.js").Outbox} outbox
   * @param {(fresh: import("./api.js").Me) => void} settle
   */
  constructor(me, outbox, settle) {
    this.progress = { ...me.progress };
    this.outbox = outbox;
    this.settle = settle;
    this.timer = 0;
    this.element = h("div", { class: "standing" });
    outbox.addEventListener("saved", () => this.refreshSoon());
    this.draw();
  }

  /** Count an answer before the server does. @param {number} n */
  count(n) {
    this.progress.mine += n;
    this.progress.mine_today += n;
    this.draw();
  }

  refreshSoon() {
    this.timer ||= setTimeout(() => void this.refresh(), REFRESH * 1000);
  }

  async refresh() {
    this.timer = 0;
    const fresh = await whoAmI().catch(() => null);
    if (!fresh) return;
    this.settle(fresh);
    if (this.outbox.waiting.length) return this.refreshSoon(); // ours are ahead of the server's
    this.progress = { ...fresh.progress };
    this.draw();
  }

  draw() {
    const { mine, mine_today: today, done_items: done, wanted_items: wanted } = this.progress;
    const joint = t("work.joint", { done, wanted });
    put(this.element,
      h("span", {}, t("work.standing", { today, all: mine })),
      h("span", { class: "joint" }, h("span", {}, joint),
        h("progress", { max: Math.max(1, wanted), value: done, "aria-label": joint })));
  }
}

/**
 * Say what is not yet saved, once it has waited for a while; and what was refused, until it is read.
 * @param {import("./outbox.js").Outbox} outbox
 */
export function unsavedBanner(outbox) {
  const banner = h("div", { class: "notice warn", role: "status", id: "unsaved", hidden: true });
  byId("floats").prepend(banner);
  let said = "";
  const draw = () => {
    const n = outbox.waiting.length;
    banner.dataset.n = String(n);
    const late = n > 0 && (outbox.age >= PATIENCE || outbox.hasEnded);
    const sentence = late ? t("work.unsaved", { n }) : "";
    if (sentence === said) return;
    if (said && !n) tell(t("work.all_saved"), "good", 3);
    said = sentence;
    put(banner, sentence);
    banner.hidden = !late;
  };
  const refused = (/** @type {import("./shelf.js").Entry} */ entry) => {
    tell(t("work.refused", { why: entry.refused ?? "" }), "bad", 0);
    void outbox.forget(entry);
  };
  draw();
  outbox.addEventListener("changed", draw);
  outbox.addEventListener("refused", (event) => refused(Reflect.get(event, "detail")));
  setInterval(draw, 1000);
  outbox.entries.filter((entry) => entry.refused).forEach(refused);
  if (outbox.numForeign) tell(t("work.foreign", { n: outbox.numForeign }), "warn", 0);
  if (!outbox.shelf.isKept) tell(t("work.not_kept"), "warn", 0);
}

/**
 * @param {import("./desk.js").Desk} desk
 * @param {() => void} look
 * @returns {HTMLElement}
 */
export function idle(desk, look) {
  const page = (/** @type {string} */ drawing, /** @type {string} */ title, /** @type {string} */ more) =>
    h("section", { class: "idle" }, icon(drawing), h("h2", {}, title), h("p", {}, more),
      h("button", { onclick: look }, t("work.again")));
  switch (desk.idle) {
    case "none":
      return page("done", t("work.none"), t("work.none.more"));
    case "cut":
      return page("cut", t("work.cut"), t("work.cut.more"));
    case "refused":
      return page("wait", t("work.paused"), desk.sentence);
    case "ended":
      return h("section", { class: "idle" }, icon("leave"), h("h2", {}, t("work.ended")),
        h("p", {}, t("work.ended.more")), h("a", { class: "button", href: "/join" }, t("join.enter")));
    default:
      return h("section", { class: "idle" }, icon("wait"));
  }
}

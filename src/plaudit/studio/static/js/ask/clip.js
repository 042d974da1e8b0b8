/**
 * A clip of a control segment: a film, or a still strip of frames. Never with sound, never by itself
 * where somebody asked for less motion.
 */

import { h } from "../h.js";

const FRAME = 1 / 25; // seconds; one step where the film does not say how long its frames are

/**
 * @typedef {{element: HTMLElement, wasSeen: () => boolean, play: () => void, restart: () => void,
 *   step: (frames: number) => void}} Clip
 */

/**
 * @param {import("../api.js").Media} media
 * @returns {Clip}
 */
export function clip(media) {
  const src = `/api/v1/media/${encodeURIComponent(media.digest)}`;
  if (!media.type.startsWith("video/")) {
    const nothing = () => undefined;
    const element = h("img", { src, alt: "" });
    return { element, wasSeen: () => true, play: nothing, restart: nothing, step: nothing };
  }
  return film(src);
}

/**
 * @param {string} src
 * @returns {Clip}
 */
function film(src) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const element = h("video", { src, muted: true, playsinline: true, controls: true, tabindex: "0",
    preload: "auto", autoplay: !calm, "data-own-keys": true });
  let seen = false;
  element.addEventListener("ended", () => {
    seen = true;
    element.dispatchEvent(new Event("seen", { bubbles: true }));
  });
  const start = () => void element.play().catch(() => undefined); // the browser may forbid it
  return {
    element,
    wasSeen: () => seen || element.error !== null, // one that cannot be shown holds nobody up
    play: () => (element.paused ? start() : element.pause()),
    restart: () => {
      element.currentTime = 0;
      start();
    },
    step: (frames) => {
      element.pause();
      element.currentTime = Math.max(0, element.currentTime + frames * FRAME);
    },
  };
}

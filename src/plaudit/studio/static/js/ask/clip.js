/**
 * A clip of a control segment: a film, or frames in a grid of one picture, drawn one by one on a canvas.
 * Never with sound, never by itself where somebody asked for less motion. The media type says how fast
 * it is, and how many frames a picture holds: `image/png;frames=50;columns=8;fps=25`.
 */

import { h } from "../h.js";

const USUAL = 25; // frames a second where nothing is said

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
  const [type = "", ...rest] = media.type.split(";");
  const said = new Map(rest.map((one) => /** @type {[string, number]} */ (
    [one.split("=")[0]?.trim() ?? "", Number(one.split("=")[1])])));
  const fps = said.get("fps") || USUAL;
  const frames = said.get("frames") ?? 0;
  if (type.startsWith("video/")) return film(src, fps);
  return frames > 1 ? strip(src, frames, said.get("columns") || frames, fps) : picture(src);
}

/** @returns {boolean} whether somebody asked for less motion */
const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/**
 * A click plays or pauses, and so does Space where the clip has the focus.
 * @param {HTMLElement} element
 * @param {() => void} play
 */
function playedBy(element, play) {
  element.addEventListener("click", play);
  element.addEventListener("keydown", (event) => {
    if (event.key !== " ") return;
    event.preventDefault();
    play();
  });
}

/**
 * @param {string} src
 * @returns {Clip}
 */
function picture(src) {
  const nothing = () => undefined;
  const element = h("img", { src, alt: "" });
  return { element, wasSeen: () => true, play: nothing, restart: nothing, step: nothing };
}

/**
 * @param {string} src
 * @param {number} fps
 * @returns {Clip}
 */
function film(src, fps) {
  // Without the browser's controls: at the end they would lie on what is to be judged.
  const element = h("video", { src, muted: true, playsinline: true, tabindex: "0", preload: "auto",
    autoplay: !isCalm() });
  let seen = false;
  const notice = () => {
    seen = true;
    element.dispatchEvent(new Event("seen", { bubbles: true }));
  };
  element.addEventListener("ended", notice);
  const start = () => void element.play().catch(() => undefined); // the browser may forbid it
  const play = () => (element.paused ? start() : element.pause());
  playedBy(element, play);
  return {
    element,
    wasSeen: () => seen || element.error !== null, // one that cannot be shown holds nobody up
    play,
    restart: () => {
      element.currentTime = 0;
      start();
    },
    step: (frames) => {
      element.pause();
      const wanted = element.currentTime + frames / fps;
      const end = Number.isFinite(element.duration) ? element.duration : wanted;
      if (wanted >= end && !seen) notice(); // stepped through to its end is seen too
      element.currentTime = Math.min(end, Math.max(0, wanted));
    },
  };
}

/**
 * Frames of one picture, row by row in a grid.
 * @param {string} src
 * @param {number} num
 * @param {number} columns
 * @param {number} fps
 * @returns {Clip}
 */
function strip(src, num, columns, fps) {
  const canvas = h("canvas", { class: "strip", tabindex: "0" });
  const grid = new Image();
  let at = 0, seen = false, failed = false, playing = 0, begun = 0;

  const draw = () => {
    const width = grid.naturalWidth / columns, height = grid.naturalHeight / Math.ceil(num / columns);
    if (canvas.width !== width) Object.assign(canvas, { width, height });
    const x = (at % columns) * width, y = Math.floor(at / columns) * height;
    canvas.getContext("2d")?.drawImage(grid, x, y, width, height, 0, 0, width, height);
    canvas.dataset.frame = String(at);
    if (at === num - 1 && !seen) {
      seen = true;
      canvas.dispatchEvent(new Event("seen", { bubbles: true }));
    }
  };
  const pause = () => {
    cancelAnimationFrame(playing);
    playing = 0;
  };
  const tick = (/** @type {number} */ now) => {
    const wanted = Math.min(num - 1, Math.floor(((now - begun) / 1000) * fps));
    if (wanted > at) {
      at = wanted;
      draw();
    }
    playing = at < num - 1 && canvas.isConnected ? requestAnimationFrame(tick) : 0;
  };
  const start = () => {
    pause();
    if (at === num - 1) at = 0;
    begun = performance.now() - (at / fps) * 1000;
    draw();
    playing = requestAnimationFrame(tick);
  };
  const isReady = () => grid.complete && grid.naturalWidth > 0;
  grid.addEventListener("load", () => (isCalm() ? draw() : requestAnimationFrame(start)));
  grid.addEventListener("error", () => (failed = true));
  grid.src = src;
  const play = () => {
    if (!isReady()) return;
    if (playing) pause();
    else start();
  };
  playedBy(canvas, play);
  return {
    element: canvas,
    wasSeen: () => seen || failed,
    play,
    restart: () => {
      at = 0;
      if (isReady()) start();
    },
    step: (frames) => {
      pause();
      at = Math.min(num - 1, Math.max(0, at + frames));
      if (isReady()) draw();
    },
  };
}

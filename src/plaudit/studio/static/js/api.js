/**
 * Calls of the studio's own API, and what can go wrong with them.
 *
 * Every failure is a `Problem` with a sentence one can show: the server's own (`detail` of its problem
 * JSON), or ours where the server could not be reached (`status` 0).
 */

import { t } from "./i18n.js";

/** @typedef {{t: string, c?: string | Token[], href?: string}} Token */
/** @typedef {{role: string, content: string, tokens?: Token[]}} Message */
/** @typedef {{plain: string, messages: Message[] | null, tokens: Token[]}} Text */
/** @typedef {{digest: string, type: string}} Media */
/** @typedef {{text: Text, media: Media | null}} Segment */
/** @typedef {"compare" | "score" | "rank" | "words" | "edit"} Ask */
/** @typedef {{key: string, ask: Ask, prompt: Text, segments: Segment[], expires: number}} Offer */
/**
 * @typedef {{mine: number, mine_today: number, done_items: number, wanted_items: number,
 *   open_items: number}} Progress
 */
/**
 * @typedef {{name: string, role: "admin" | "annotator" | "viewer", lang: string,
 *   keys: Record<string, string>, letters: boolean, progress: Progress,
 *   settings: {strength: boolean, prefetch: number, guidelines: Token[] | null}}} Me
 */

export class Problem extends Error {
  /**
   * @param {number} status
   * @param {string} sentence
   * @param {number} [wait] seconds that the server asks us to wait
   */
  constructor(status, sentence, wait = 0) {
    super(sentence);
    this.status = status;
    this.wait = wait;
  }

  /** True where trying the same again later can help. */
  get passes() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

/**
 * @param {Response} response
 * @returns {Promise<Problem>}
 */
async function problemOf(response) {
  let sentence = t("problem.status", { status: response.status });
  try {
    const body = await response.json();
    if (typeof body.detail === "string" && body.detail) sentence = body.detail;
  } catch {
    // no JSON: whoever stands between us and the server has answered; our own sentence stays
  }
  return new Problem(response.status, sentence, Number(response.headers.get("Retry-After")) || 0);
}

/**
 * One call: `await call("POST", "votes", {votes})` gives the answer's JSON or throws a Problem.
 * @param {string} method
 * @param {string} path below /api/v1/
 * @param {unknown} [body] sent as JSON; a Blob or string as it is, with `type`
 * @param {{timeout?: number, keepalive?: boolean, type?: string, signal?: AbortSignal}} [options]
 * @returns {Promise<any>}
 */
export async function call(method, path, body, options = {}) {
  const raw = body instanceof Blob || typeof body === "string";
  /** @type {RequestInit} */
  const init = {
    method,
    headers: { "X-Plaudit": "1", Accept: "application/json" },
    credentials: "same-origin",
    cache: "no-store",
    keepalive: options.keepalive ?? false,
    signal: options.signal ?? AbortSignal.timeout(options.timeout ?? 20000),
  };
  if (method !== "GET") {
    Reflect.set(init.headers ?? {}, "Content-Type", options.type ?? "application/json");
    init.body = raw ? body : JSON.stringify(body ?? {});
  }
  let response;
  try {
    response = await fetch(`/api/v1/${path}`, init);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem(0, t("problem.unreachable"));
  }
  if (!response.ok) throw await problemOf(response);
  if (response.status === 204) return null;
  try {
    return await response.json();
  } catch {
    throw new Problem(0, t("problem.unreachable")); // cut off in the middle of the answer
  }
}

/**
 * Who I am, or null for nobody.
 * @returns {Promise<Me | null>}
 */
export async function me() {
  try {
    return await call("GET", "me");
  } catch (problem) {
    if (problem instanceof Problem && problem.status === 401) return null;
    throw problem;
  }
}

/**
 * Remember that somebody has entered in this browser (the cookie itself cannot be read by a page), so
 * that the door need not ask a server that would refuse.
 * @param {boolean} [has]
 * @returns {boolean}
 */
export function entered(has) {
  try {
    if (has === true) localStorage.setItem("plaudit-entered", "1");
    if (has === false) localStorage.removeItem("plaudit-entered");
    return localStorage.getItem("plaudit-entered") === "1";
  } catch {
    return false;
  }
}

/**
 * A random name of 128 bits, in hex; also where the page is not a secure context.
 * @returns {string}
 */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

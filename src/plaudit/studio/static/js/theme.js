/**
 * Light, dark, or as the system says; remembered in this browser.
 */

/** @typedef {"system" | "light" | "dark"} Theme */

/** @returns {Theme} */
export function theme() {
  const chosen = document.documentElement.dataset.theme;
  return chosen === "light" || chosen === "dark" ? chosen : "system";
}

/** @returns {boolean} whether the page is dark now */
export function isDark() {
  const chosen = theme();
  return chosen === "system" ? matchMedia("(prefers-color-scheme: dark)").matches : chosen === "dark";
}

/** @param {Theme} next */
export function setTheme(next) {
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("plaudit-theme", next);
  } catch {
    // not remembered, then
  }
  dispatchEvent(new CustomEvent("plaudit-theme"));
}

// Runs before the first paint, so that no page flashes in the wrong theme: an ordinary script, not a module.
(function () {
  const root = document.documentElement;
  try {
    const theme = localStorage.getItem("plaudit-theme");
    if (theme === "light" || theme === "dark") root.dataset.theme = theme;
    const lang = localStorage.getItem("plaudit-lang") || navigator.language.slice(0, 2);
    root.lang = lang === "zh" ? "zh-CN" : "en";
  } catch {
    root.lang = "en"; // storage is closed to us: the system's theme, and English
  }
})();

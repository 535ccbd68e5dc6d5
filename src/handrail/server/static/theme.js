// Runs before the first paint, so that the page does not flash in another theme. The default is the system's theme.
"use strict";
(() => {
  const root = document.documentElement;
  const stored = () => {
    try { return localStorage.getItem("theme"); } catch { return null; }
  };
  const apply = (theme) => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
  };
  apply(stored());
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("[data-theme-switch]");
    if (!button) return;
    const order = { "": "dark", dark: "light", light: "" };
    const show = () => {
      button.textContent = { "": "Auto", dark: "Dark", light: "Light" }[root.dataset.theme || ""];
      button.setAttribute("aria-label", `Theme: ${button.textContent}`);
    };
    button.hidden = false;
    show();
    button.addEventListener("click", () => {
      const theme = order[root.dataset.theme || ""];
      try { localStorage.setItem("theme", theme); } catch { /* storage may be blocked */ }
      apply(theme);
      show();
    });
  });
})();

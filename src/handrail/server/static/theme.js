// Before the first paint, so that a chosen theme does not flash. Nothing chosen: the system's.
"use strict";
(() => {
  const root = document.documentElement;
  const chosen = () => {
    try { return localStorage.getItem("theme"); } catch { return null; }
  };
  const apply = (theme) => {
    if (theme) root.dataset.theme = theme; else delete root.dataset.theme;
  };
  apply(chosen());
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
      try { localStorage.setItem("theme", theme); } catch { /* a private window keeps nothing */ }
      apply(theme);
      show();
    });
  });
})();

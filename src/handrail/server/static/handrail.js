// What scripts add to the pages: local time, j and k in tables, forms that submit when a selection changes.
"use strict";
(() => {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const date = new Date(time.dateTime);
    const pad = (n) => String(n).padStart(2, "0");
    time.title = time.textContent;
    time.textContent = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ` +
      `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  }

  for (const select of document.querySelectorAll("select[data-submit]")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }

  const isTextInput = (element) => element.closest("input, textarea, select, [contenteditable]");
  const links = [...document.querySelectorAll("[data-rows] > tr td:first-child a")];
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTextInput(event.target)) return;
    if (event.key === "/") {
      const field = document.querySelector("form.filter input:not([type=hidden])");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
      return;
    }
    const step = { j: 1, k: -1 }[event.key];
    if (!step || !links.length) return;
    event.preventDefault();
    const current = links.indexOf(document.activeElement);
    links[Math.max(0, Math.min(links.length - 1, current + step))].focus();
  });
})();

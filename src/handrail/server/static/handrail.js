// What pages gain with a script: the reader's own time, j and k in lists, forms that send themselves.
"use strict";
(() => {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    const two = (n) => String(n).padStart(2, "0");
    time.title = time.textContent;
    time.textContent = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())} ` +
      `${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`;
  }

  for (const select of document.querySelectorAll("select[data-submit]")) {
    select.addEventListener("change", () => select.form.requestSubmit());
  }

  const typing = (element) => element.closest("input, textarea, select, [contenteditable]");
  const links = [...document.querySelectorAll("[data-rows] > tr td:first-child a")];
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (event.key === "/") {
      const field = document.querySelector("form.filter input:not([type=hidden])");
      if (field) { event.preventDefault(); field.focus(); field.select(); }
      return;
    }
    const step = { j: 1, k: -1 }[event.key];
    if (!step || !links.length) return;
    event.preventDefault();
    const at = links.indexOf(document.activeElement);
    links[Math.max(0, Math.min(links.length - 1, at + step))].focus();
  });
})();

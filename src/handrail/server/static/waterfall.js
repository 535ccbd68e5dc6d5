// The waterfall of a trace: only the rows in sight are made, so that 20,000 spans scroll like twenty.
"use strict";
(() => {
  const host = document.getElementById("waterfall");
  const all = JSON.parse(document.getElementById("spans").textContent).rows;
  const width = Number(host.dataset.width);
  const HEIGHT = 28, BEYOND = 8;
  const folded = new Set();
  let seen = all.map((_, index) => index);
  let at = 0;

  const made = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text) element.textContent = text;
    return element;
  };

  const duration = (us) => {
    const seconds = us / 1e6;
    if (seconds >= 172800) return `${(seconds / 86400).toFixed(1)} days`;
    if (seconds >= 7200) return `${(seconds / 3600).toFixed(1)} h`;
    if (seconds >= 120) return `${(seconds / 60).toFixed(1)} min`;
    if (seconds >= 1) return `${seconds.toFixed(1)} s`;
    return us >= 9500 || us < 10 ? `${Math.round(us / 1e3)} ms` : `${(us / 1e3).toPrecision(2)} ms`;
  };

  const bar = (className, [start, wide]) => {
    const piece = made("i", className);
    piece.style.left = `${100 * start / width}%`;
    piece.style.width = `${100 * wide / width}%`;
    return piece;
  };

  const label = (row, index) => {
    const cell = made("span", "label");
    cell.style.paddingLeft = `${Math.min(row.depth, 24) * 14}px`;
    const fold = made("span", "fold", row.below ? (folded.has(index) ? "▸" : "▾") : "");
    if (row.below) fold.dataset.fold = index;
    cell.append(fold, made("span", `dot ${row.kind}`), made("span", "text", row.name));
    if (row.error) cell.append(made("span", "tag failed", row.error));
    if (row.note) cell.append(made("span", "quiet", row.note));
    return cell;
  };

  const line = (place) => {
    const index = seen[place], row = all[index];
    const element = made("div", "row");
    element.setAttribute("role", "treeitem");
    element.setAttribute("aria-level", row.depth + 1);
    element.setAttribute("aria-selected", place === at);
    if (row.below) element.setAttribute("aria-expanded", !folded.has(index));
    element.setAttribute("aria-label", `${row.name}, ${row.kind}, ${duration(row.took)}${row.error ? `, ${row.error}` : ""}`);
    element.id = `row-${place}`;
    element.dataset.place = place;
    element.style.top = `${place * HEIGHT}px`;
    const track = made("span", "track");
    track.append(bar(row.kind, row.bar), ...(row.path || []).map((piece) => bar("critical", piece)));
    element.append(label(row, index), track, made("span", "n", duration(row.took)), made("span", "n cost", row.cost));
    return element;
  };

  const list = made("div", "rows");
  const space = made("div", "space");
  list.tabIndex = 0;
  list.setAttribute("role", "tree");
  list.setAttribute("aria-labelledby", "waterfall-title");
  list.append(space);

  const draw = () => {
    // Before anything is measured: the list is as high as what is in it.
    space.style.height = `${seen.length * HEIGHT}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - BEYOND);
    const last = Math.min(seen.length, Math.ceil((list.scrollTop + list.clientHeight) / HEIGHT) + BEYOND);
    space.replaceChildren(...Array.from({ length: last - first }, (_, n) => line(first + n)));
    list.setAttribute("aria-activedescendant", `row-${at}`);
  };

  const unfolded = () => {
    const kept = [];
    let hidden = Infinity;
    all.forEach((row, index) => {
      if (row.depth > hidden) return;
      hidden = folded.has(index) ? row.depth : Infinity;
      kept.push(index);
    });
    return kept;
  };

  const toggle = (index) => {
    if (!all[index].below) return;
    if (!folded.delete(index)) folded.add(index);
    const chosen = seen[at];
    seen = unfolded();
    at = Math.max(0, seen.findLastIndex((each) => each <= chosen));
    draw();
  };

  const move = (place) => {
    at = Math.max(0, Math.min(seen.length - 1, place));
    const top = at * HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + HEIGHT - list.clientHeight;
    draw();
  };

  const panel = document.getElementById("panel");
  let wanted = 0;
  const open = async (place) => {
    move(place);
    const mine = ++wanted;
    const address = `${host.dataset.base}/spans/${all[seen[at]].id}${location.search}`;
    panel.hidden = false;
    panel.replaceChildren(made("p", "quiet", "Loading"));
    const answer = await fetch(address).catch(() => null);
    const found = answer && new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("span");
    if (mine !== wanted) return;
    panel.replaceChildren(found ? document.adoptNode(found) : made("p", "alarm", "It could not be loaded. Try again."));
  };
  const close = () => { wanted++; panel.hidden = true; };

  const keys = {
    j: () => move(at + 1), ArrowDown: () => move(at + 1), k: () => move(at - 1), ArrowUp: () => move(at - 1),
    PageDown: () => move(at + 20), PageUp: () => move(at - 20), Home: () => move(0), End: () => move(seen.length - 1),
    Enter: () => open(at), Escape: close,
    h: () => { if (!folded.has(seen[at])) toggle(seen[at]); }, ArrowLeft: () => { if (!folded.has(seen[at])) toggle(seen[at]); },
    l: () => { if (folded.has(seen[at])) toggle(seen[at]); }, ArrowRight: () => { if (folded.has(seen[at])) toggle(seen[at]); },
  };
  const free = new Set(["j", "k", "h", "l", "Escape"]);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    if (event.target.closest("input, textarea, select")) return;
    if (!list.contains(event.target) && !free.has(event.key)) return;
    event.preventDefault();
    list.focus({ preventScroll: true });
    keys[event.key]();
  });
  list.addEventListener("click", (event) => {
    const fold = event.target.closest("[data-fold]"), row = event.target.closest("[data-place]");
    if (fold) toggle(Number(fold.dataset.fold));
    else if (row) open(Number(row.dataset.place));
  });
  list.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  new ResizeObserver(draw).observe(list);

  host.replaceChildren(list);
  document.querySelector(".keys").hidden = false;
  draw();
})();

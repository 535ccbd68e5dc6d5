// The waterfall of a trace. Only the rows in view are in the document, so that 20,000 spans scroll as fast as twenty.
"use strict";
(() => {
  const host = document.getElementById("waterfall");
  const all = JSON.parse(document.getElementById("spans").textContent).rows;
  const width = Number(host.dataset.width);
  const ROW_HEIGHT = 28, OVERSCAN = 8;
  const folded = new Set();
  let visible = all.map((_, index) => index);
  let selected = 0;

  const create = (tag, className, text) => {
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

  const bar = (className, [start, extent]) => {
    const piece = create("i", className);
    piece.style.left = `${100 * start / width}%`;
    piece.style.width = `${100 * extent / width}%`;
    return piece;
  };

  const label = (row, index) => {
    const cell = create("span", "label");
    cell.style.paddingLeft = `${Math.min(row.depth, 24) * 14}px`;
    const fold = create("span", "fold", row.children ? (folded.has(index) ? "▸" : "▾") : "");
    if (row.children) fold.dataset.fold = index;
    cell.append(fold, create("span", `dot ${row.kind}`), create("span", "text", row.name));
    if (row.error) cell.append(create("span", "tag failed", row.error));
    if (row.note) cell.append(create("span", "quiet", row.note));
    return cell;
  };

  const line = (place) => {
    const index = visible[place], row = all[index];
    const element = create("div", "row");
    element.setAttribute("role", "treeitem");
    element.setAttribute("aria-level", row.depth + 1);
    element.setAttribute("aria-selected", place === selected);
    if (row.children) element.setAttribute("aria-expanded", !folded.has(index));
    element.setAttribute("aria-label", `${row.name}, ${row.kind}, ${duration(row.duration_us)}${row.error ? `, ${row.error}` : ""}`);
    element.id = `row-${place}`;
    element.dataset.place = place;
    element.style.top = `${place * ROW_HEIGHT}px`;
    const track = create("span", "track");
    track.append(bar(row.kind, row.bar), ...(row.path || []).map((piece) => bar("critical", piece)));
    element.append(label(row, index), track, create("span", "n", duration(row.duration_us)), create("span", "n cost", row.cost));
    return element;
  };

  const list = create("div", "rows");
  const space = create("div", "space");
  list.tabIndex = 0;
  list.setAttribute("role", "tree");
  list.setAttribute("aria-labelledby", "waterfall-title");
  list.append(space);

  const draw = () => {
    // Set before measuring: the scroll height depends on it.
    space.style.height = `${visible.length * ROW_HEIGHT}px`;
    const first = Math.max(0, Math.floor(list.scrollTop / ROW_HEIGHT) - OVERSCAN);
    const last = Math.min(visible.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_HEIGHT) + OVERSCAN);
    space.replaceChildren(...Array.from({ length: last - first }, (_, n) => line(first + n)));
    list.setAttribute("aria-activedescendant", `row-${selected}`);
  };

  const visibleRows = () => {
    const indices = [];
    let hiddenBelow = Infinity;
    all.forEach((row, index) => {
      if (row.depth > hiddenBelow) return;
      hiddenBelow = folded.has(index) ? row.depth : Infinity;
      indices.push(index);
    });
    return indices;
  };

  const toggle = (index) => {
    if (!all[index].children) return;
    if (!folded.delete(index)) folded.add(index);
    const current = visible[selected];
    visible = visibleRows();
    selected = Math.max(0, visible.findLastIndex((index) => index <= current));
    draw();
  };

  const move = (place) => {
    selected = Math.max(0, Math.min(visible.length - 1, place));
    const top = selected * ROW_HEIGHT;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW_HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_HEIGHT - list.clientHeight;
    draw();
  };

  const panel = document.getElementById("panel");
  // Counts requests: a slow response to an earlier one must not replace a later one.
  let request = 0;
  const open = async (place) => {
    move(place);
    const own = ++request;
    const address = `${host.dataset.base}/spans/${all[visible[selected]].id}${location.search}`;
    panel.hidden = false;
    panel.replaceChildren(create("p", "quiet", "Loading…"));
    const response = await fetch(address).catch(() => null);
    const html = response && await response.text();
    const span = html && new DOMParser().parseFromString(html, "text/html").getElementById("span");
    if (own !== request) return;
    panel.replaceChildren(span ? document.adoptNode(span) : create("p", "alarm", "The span could not be loaded. Try again."));
  };
  const close = () => { request++; panel.hidden = true; };

  const fold = () => { if (!folded.has(visible[selected])) toggle(visible[selected]); };
  const unfold = () => { if (folded.has(visible[selected])) toggle(visible[selected]); };
  const keys = {
    j: () => move(selected + 1), ArrowDown: () => move(selected + 1),
    k: () => move(selected - 1), ArrowUp: () => move(selected - 1),
    PageDown: () => move(selected + 20), PageUp: () => move(selected - 20),
    Home: () => move(0), End: () => move(visible.length - 1),
    Enter: () => open(selected), Escape: close,
    h: fold, ArrowLeft: fold, l: unfold, ArrowRight: unfold,
  };
  // These keys work wherever the focus is; the others only in the list.
  const globalKeys = new Set(["j", "k", "h", "l", "Escape"]);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    if (event.target.closest("input, textarea, select")) return;
    if (!list.contains(event.target) && !globalKeys.has(event.key)) return;
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

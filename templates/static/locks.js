// The table of locks follows the stream of events, and asks now and then while there is none. Rows
// do not move under the pointer or the focus: there they change in place, and the order is put
// right when the pointer and the focus have left.
"use strict";
(() => {
  const pause = { live: 5000, alone: 2000, least: 200 }; // between two refreshes, in milliseconds
  const burst = 10; // refreshes that may follow each other that quickly; then it is one a second
  const table = () => document.getElementById("locks");

  let live = false;
  let last = Date.now();
  let spare = burst;
  let due = 0;
  let unsorted = false;

  const refresh = () => {
    clearTimeout(due);
    due = 0;
    last = Date.now();
    htmx.trigger(table(), "refresh");
  };
  const soon = () => {
    if (due || document.hidden) return;
    const wait = spare > 0 ? pause.least : 1000;
    spare = Math.max(0, spare - 1);
    due = setTimeout(refresh, Math.max(0, last + wait - Date.now()));
  };
  setInterval(() => {
    spare = Math.min(burst, spare + 1);
    if (!document.hidden && Date.now() - last >= (live ? pause.live : pause.alone)) refresh();
  }, 1000);
  document.addEventListener("visibilitychange", soon);
  window.gatehouse.listen({
    heard: soon,
    changed: (now) => {
      live = now;
      document.documentElement.classList.toggle("live", live);
      soon();
    },
  });

  const inUse = () => table().querySelector("tbody:hover, tbody:focus-within") !== null;
  const rowsOf = (root) => [...root.querySelectorAll("tr[data-resource]")];

  // Each row keeps its place. One that is over says so, new ones come last.
  const update = (fresh) => {
    const news = new Map(rowsOf(fresh).map((row) => [row.dataset.resource, row]));
    for (const row of rowsOf(table())) {
      const now = news.get(row.dataset.resource);
      news.delete(row.dataset.resource);
      row.classList.toggle("over", !now);
      if (!now) {
        row.querySelector(".left")?.replaceWith("ended");
        continue;
      }
      [...row.cells].forEach((cell, i) => {
        if (!cell.contains(document.activeElement)) cell.replaceChildren(...now.cells[i].childNodes);
      });
    }
    table().querySelector("tbody").append(...news.values());
    document.dispatchEvent(new Event("gatehouse:changed"));
  };

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.xhr.status !== 200 || !table().querySelector("tbody") || !inUse()) return;
    const fresh = new DOMParser().parseFromString(event.detail.serverResponse, "text/html").getElementById("locks");
    if (!fresh) return;
    event.detail.shouldSwap = false;
    unsorted = true;
    update(fresh);
  });
  const sortAgain = () => {
    if (unsorted && !inUse()) {
      unsorted = false;
      refresh();
    }
  };
  for (const kind of ["pointermove", "focusin", "focusout"]) document.addEventListener(kind, () => setTimeout(sortAgain));
})();

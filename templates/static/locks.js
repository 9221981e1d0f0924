// The table of locks follows the stream of events, and is refreshed now and then besides. Rows
// do not move under the pointer or the focus: there they change in place, and the order is put
// right when the pointer and the focus have left.
"use strict";
(() => {
  const pause = { most: 5000, least: 200 }; // between two refreshes, in milliseconds
  const burst = 10; // refreshes that may follow each other that quickly; then it is one a second
  const table = () => document.getElementById("locks");

  let last = Date.now();
  let spare = burst;
  let due = 0;
  let unsorted = false;

  const refresh = () => {
    clearTimeout(due);
    due = 0;
    last = Date.now();
    if (table()) htmx.trigger(table(), "refresh"); // else the page is kept for "Back", and empty
  };
  const soon = () => {
    if (due || document.hidden) return;
    const wait = spare > 0 ? pause.least : 1000;
    spare = Math.max(0, spare - 1);
    due = setTimeout(refresh, Math.max(0, last + wait - Date.now()));
  };
  setInterval(() => {
    spare = Math.min(burst, spare + 1);
    if (!document.hidden && Date.now() - last >= pause.most) refresh();
  }, 1000);
  document.addEventListener("visibilitychange", soon);
  window.gatehouse.listen({ heard: soon, look: soon });

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
    if (event.detail.xhr.status !== 200) return;
    const fresh = window.gatehouse.parse(event.detail.serverResponse).getElementById("locks");
    if (!fresh) return;
    const another = fresh.dataset.user !== document.body.dataset.user; // has signed in
    if (!another && (!table().querySelector("tbody") || !inUse())) return;
    event.detail.shouldSwap = false;
    if (another) return location.reload();
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

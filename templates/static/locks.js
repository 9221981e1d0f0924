// The table of locks follows the stream of events, and is refreshed now and then besides. Rows
// do not move under the pointer or the focus: there they change in place, and the order is put
// right when the pointer and the focus have left.
"use strict";
(() => {
  const pause = { most: 5000, least: 100 }; // between two refreshes, in milliseconds
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

  // gone is for a row that is not in the list any more. A list that is partial does not have all
  // locks: what is not in it may still be held.
  const gone = (row, partial) => {
    row.classList.toggle("over", !partial);
    const said = Object.assign(document.createElement("span"), { className: "gone", textContent: partial ? "not in this list now" : "ended" });
    row.querySelector(".left, .gone")?.replaceWith(said);
  };

  // What is said above the rows. Where it is the same it stays, or it would be read out again.
  const above = (root) => [...root.querySelectorAll(":scope > :is(.banner, .missing, .count)")];
  const words = (parts) => parts.map((part) => part.textContent).join("\n");

  // update is for a table in use. Of a list that is missing there are no rows: those of before stay.
  const update = (fresh) => {
    const [old, now] = [above(table()), above(fresh)];
    if (words(old) !== words(now)) {
      old.forEach((part) => part.remove());
      table().prepend(...now);
    }
    if (!table().querySelector(".missing")) updateRows(fresh);
    document.dispatchEvent(new Event("gatehouse:changed"));
  };
  // Each row keeps its place. One that is gone says so, new ones come last.
  const updateRows = (fresh) => {
    const news = new Map(rowsOf(fresh).map((row) => [row.dataset.resource, row]));
    for (const row of rowsOf(table())) {
      const now = news.get(row.dataset.resource);
      news.delete(row.dataset.resource);
      if (!now) {
        gone(row, "partial" in fresh.dataset);
        continue;
      }
      row.classList.remove("over");
      [...row.cells].forEach((cell, i) => {
        if (!cell.contains(document.activeElement)) cell.replaceChildren(...now.cells[i].childNodes);
      });
    }
    table().querySelector("tbody").append(...news.values());
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

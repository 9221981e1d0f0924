// What the page can do with JavaScript and does without, only less smoothly:
// times as the reader writes them, a countdown between two refreshes, a copy
// button, and a word when the refreshes fail.
"use strict";
(() => {
  const one = (selector) => document.querySelector(selector);
  let ahead = 0; // this clock before the server's, in milliseconds

  const setClock = (element) => { ahead = Date.now() - Number(element.dataset.now); };

  // The same words as the server's.
  const inWords = (seconds) => {
    const padded = (n) => String(n).padStart(2, "0");
    if (seconds <= 0) return "ending";
    if (seconds >= 3600) return `${Math.floor(seconds / 3600)} h ${padded(Math.floor(seconds / 60) % 60)} min`;
    if (seconds >= 60) return `${Math.floor(seconds / 60)} min ${padded(seconds % 60)} s`;
    return `${seconds} s`;
  };

  const tick = () => {
    for (const element of document.querySelectorAll("[data-until]")) {
      const seconds = Math.ceil((Number(element.dataset.until) - (Date.now() - ahead)) / 1000);
      const words = inWords(seconds);
      if (element.textContent !== words) element.textContent = words;
      element.classList.toggle("soon", seconds <= 30);
    }
  };

  const localTimes = () => {
    const today = new Date().toDateString();
    for (const element of document.querySelectorAll("time:not([title])")) {
      const time = new Date(element.dateTime);
      element.title = time.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
      element.textContent = time.toDateString() === today
        ? time.toLocaleTimeString(undefined, { timeStyle: "short" })
        : time.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
    }
  };

  const copyButtons = () => {
    if (!navigator.clipboard) return;
    for (const button of document.querySelectorAll("[data-copy][hidden]")) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      });
    }
  };

  const refresh = () => { localTimes(); copyButtons(); tick(); };

  // A page left open must not show what its reader may no longer see. If the
  // session lives on, used from another tab, the page just comes back.
  let cleared = false; // asked for twice, it would never come from a slow server
  const clearWhenEnded = () => {
    const { ends, reload } = document.body.dataset;
    if (ends && !cleared && Date.now() - ahead > Number(ends) + 1000) {
      cleared = true;
      one("main").replaceChildren();
      location.replace(reload);
    }
  };

  let since = new Date(); // of the last refresh that succeeded
  const tellStale = (why) => {
    const stale = one("#stale");
    if (!stale) return;
    stale.textContent = why && `Not refreshed since ${since.toLocaleTimeString()}: ${why} Trying again.`;
    stale.hidden = !why;
    if (!why) since = new Date();
  };

  // The page came back by itself: asked for again, that is its reader's doing.
  const address = new URL(location.href);
  if (address.searchParams.has("left-open")) {
    address.searchParams.delete("left-open");
    history.replaceState(null, "", address);
  }

  setClock(document.body);
  refresh();
  document.documentElement.classList.add("script");
  document.addEventListener("gatehouse:changed", refresh); // a script has put something new on the page
  setInterval(() => { tick(); clearWhenEnded(); }, 1000);
  document.addEventListener("visibilitychange", clearWhenEnded);

  // A browser may keep the whole page for "Back". By then its reader may have signed out,
  // or be another one: it is kept empty, and asked for again.
  window.addEventListener("pagehide", (event) => { if (event.persisted) document.body.replaceChildren(); });
  window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // Tabs that nobody sees ask for nothing.
  document.addEventListener("htmx:beforeRequest", (event) => { if (document.hidden || leaves) event.preventDefault(); });
  // Who has sent a form goes where that leads: what a refresh is answered meanwhile, such as that
  // the session has ended, must not lead elsewhere.
  let leaves = false;
  let sent = {}; // the form, and when
  // Signing out clears what this browser has of texts that were not saved (copies.js). Without https
  // it does not.
  const keepsTexts = () => isSecureContext && Object.entries(localStorage).some(([key, text]) => /^gatehouse\.(draft|new)\./.test(key) && !text.includes('"onItsWay":true'));
  document.addEventListener("submit", (event) => {
    // A double click would create two processes. The forms with a draft may go again, with what was
    // typed since; a search, too.
    const { target: form, timeStamp: at } = event;
    if (form === sent.form && at - sent.at < 5000 && form.method === "post" && !form.dataset.draft) event.preventDefault();
    if (!event.defaultPrevented && form.action.endsWith("/logout") && keepsTexts() && !confirm("This browser has text that is saved nowhere else. Signing out deletes it. Sign out all the same?")) event.preventDefault();
    if (event.defaultPrevented) return;
    leaves = true;
    sent = { form, at };
  });
  window.addEventListener("pageshow", () => { leaves = false; });
  document.addEventListener("htmx:beforeOnLoad", (event) => { if (leaves) event.preventDefault(); });
  document.addEventListener("htmx:afterSwap", () => {
    const table = one("#locks");
    if (table) setClock(table);
    refresh();
  });
  document.addEventListener("htmx:afterOnLoad", (event) => {
    const status = event.detail.xhr.status;
    tellStale(status < 400 ? "" : status === 503 ? "the database or the server cannot be reached." : `the server answered ${status}.`);
  });
  document.addEventListener("htmx:sendError", () => tellStale("the server cannot be reached."));
  document.addEventListener("htmx:timeout", () => tellStale("the server does not answer."));
})();

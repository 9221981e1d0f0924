// The page on which a user decides between two texts. What is written there is chosen with it, and
// kept as the draft. The lock follows the hands, as on the page before, and so does what is said of it.
"use strict";
(() => {
  const form = document.getElementById("conflict");
  if (!form) return;
  const { listen, active, ask, note, unnote, button, paragraph, clock, badge, strays, left } = window.gatehouse;
  const { process, user, lock } = form.dataset;
  const every = { extend: 20_000, state: 15_000 }; // in milliseconds
  const here = `/processes/${process}`;
  let held = Boolean(lock);
  let leaving = false; // for a page of ours, which decides about the lock
  let reloading = false;

  // The draft is what the user would have if nothing more was decided: their own text, but for what
  // they wrote here.
  const read = (name) => form.elements[`${name}.${form.elements[`${name}.choice`].value === "edited" ? "edited" : "mine"}`].value;
  const drafts = window.gatehouse.drafts(form, { signedOut: () => drafts.keep(), refused: () => check(), read, base: form.elements.began.value });

  const lose = (text) => {
    if (!held) return;
    held = false;
    unnote("asked");
    badge("!");
    note("lost", form, { kind: "notice failed", role: "alert", parts: [`${text} Press Save all the same: what you decided is kept, and you see how to go on.`] });
  };

  let extended = 0;
  let planned = 0;
  const extend = async () => {
    planned = 0;
    extended = Date.now();
    try {
      const response = await ask(`${here}/edit/extend`, { lock });
      if (response.ok) active();
      if (response.status === 409) lose((await response.json()).text);
    } catch {
      // The server is away, as the drafts say.
    }
  };
  // Two long texts are read for longer than a lock lasts.
  const follow = () => { if (held) planned ||= setTimeout(extend, Math.max(0, extended + every.extend - Date.now())); };
  for (const kind of ["input", "keydown", "pointermove", "scroll"]) document.addEventListener(kind, follow, { passive: true });

  // answer is a word to who asks for the lock.
  const answer = async (word, { id }) => {
    try {
      await drafts.flush();
      const response = await ask(`${here}/edit/answer`, { lock, answer: `${word} ${id}` });
      if (!response.ok) throw new Error(response.statusText);
      if (word !== "give") return check();
      leaving = true;
      location.assign(here);
    } catch {
      note("told", form, { kind: "notice failed", role: "alert", parts: ["Nothing was answered. Try again in a moment."] });
      check();
    }
  };
  let shown = "[]"; // who asks
  const showAskers = (requests) => {
    if (JSON.stringify(requests) === shown) return;
    shown = JSON.stringify(requests);
    const focused = document.getElementById("asked")?.contains(document.activeElement);
    badge(requests.length ? `(${requests.length})` : "");
    if (!requests.length) return unnote("asked");
    const box = note("asked", form, { parts: requests.flatMap((asked) => [
      paragraph(`${asked.by.email} asks to edit${asked.message ? `: “${asked.message}”` : ""}. Without an answer they get it at `, clock(asked.answerBy), ", unless you are typing then."),
      button("Give it, and keep my text", () => answer("give", asked)), " ", button("5 more minutes", () => answer("later", asked)), " ", button("No", () => answer("no", asked)),
    ]) });
    if (focused) box.querySelector("button").focus();
  };

  let checked = 0;
  const check = async () => {
    if (leaving || !held) return;
    checked = Date.now();
    try {
      const response = await ask(`${here}/edit/state?${new URLSearchParams({ lock })}`);
      if (response.status === 401) return drafts.keep();
      if (response.status === 404) return lose("The process was deleted.");
      if (!response.ok) return;
      const state = await response.json();
      if (state.user !== user) return drafts.keep(); // another one has signed in
      if (state.held) showAskers(state.requests);
      else lose(state.text);
    } catch {
      // The server is away.
    }
  };
  listen({
    heard: (kind, event) => { if (event.resource === `process:${process}` && kind !== "extended") check(); },
    look: check,
    hidden: () => held,
  });
  setInterval(() => { if (Date.now() - checked >= every.state) check(); }, 1000);

  let sent = 0; // when the form was
  form.addEventListener("input", ({ target }) => {
    if (sent && Date.now() - sent > 5000) { // it has not gone
      sent = 0;
      leaving = false;
      drafts.resume();
    }
    if (target.name.endsWith(".edited")) document.getElementById(`${target.id}-edited`).checked = true;
    drafts.changed();
  });

  form.addEventListener("submit", async (event) => {
    if (leaving) {
      sent = Date.now();
      return drafts.carry();
    }
    event.preventDefault();
    if (drafts.away()) await drafts.flush(); // it may be back
    leaving = !drafts.away() && await drafts.send();
    if (leaving) setTimeout(() => form.requestSubmit(event.submitter ?? undefined)); // not within the event that is stopped
    else drafts.unreached("Nothing was saved");
  });
  globalThis.navigation?.addEventListener("navigate", (event) => {
    reloading = event.navigationType === "reload";
    if (!event.formData) strays();
  });
  // As on the page before, the lock is given back a little later: this one may be back at once.
  window.addEventListener("pagehide", () => {
    if (leaving) return;
    drafts.last();
    if (!held || reloading) return;
    sessionStorage.setItem(left(process), "true");
    ask(`${here}/edit/release`, { lock, soon: "true" }, { keepalive: true, signal: undefined }).catch(() => {});
  });
  if (held) extend();
})();

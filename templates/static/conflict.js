// The page on which a user decides between two texts. What is written there is chosen with it, and
// kept as the draft. The lock follows the hands, as on the page before. Who asks for it is shown, and
// how it ended.
"use strict";
(() => {
  const form = document.getElementById("conflict");
  if (!form) return;
  const { listen, active, ask, load, note, unnote, button, paragraph, clock, badge, bdi, uncarry, left, wasGiven } = window.gatehouse;
  const { process, user, lock } = form.dataset;
  const every = { extend: 20_000, state: 15_000 }; // in milliseconds
  const here = `/processes/${process}`;
  let held = Boolean(lock);
  let leaving = false; // for a page of ours, which decides about the lock
  let reloading = false;

  // The draft is what the user would have if nothing more was decided: their own text, but for what
  // they wrote here.
  const read = (name) => form.elements[`${name}.${form.elements[`${name}.choice`].value === "edited" ? "edited" : "mine"}`].value;
  const drafts = window.gatehouse.drafts(form, { signedOut: () => signedOut(), refused: () => check(), read, base: form.elements.began.value });

  let over = false; // the user is signed out, or another one is signed in
  const signedOut = () => {
    if (over) return;
    over = true;
    drafts.keep();
  };
  let final = false; // there is no way on from here
  const lose = (text, next = "") => {
    if (final || (!held && !next)) return;
    final = Boolean(next);
    held = false;
    unnote("asked");
    badge("!");
    note("lost", form, { kind: "notice failed", role: "alert", parts: [`${text} ${next || "Press Save all the same: what you decided is kept, and you see how to go on."}`] });
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
      unnote("told");
      if (!response.redirected) return check(); // also where the request had been taken back
      held = false; // given away
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
      paragraph(asked.by.email, " asks to edit", ...(asked.message ? [": “", bdi(asked.message), "”"] : []), `. Without an answer they get it at `, clock(asked.answerBy), ", unless you are typing then."),
      button("Give it, and keep my text", () => answer("give", asked)), " ", button("5 more minutes", () => answer("later", asked)), " ", button("No", () => answer("no", asked)),
    ]) });
    if (focused) box.querySelector("button").focus();
  };

  let checked = 0;
  const check = async () => {
    if (leaving || over) return;
    checked = Date.now();
    try {
      const response = await ask(`${here}/edit/state?${new URLSearchParams({ lock })}`);
      if (response.status === 401) return signedOut();
      if (response.status === 403 && await load(here, signedOut)) { // it is the same user
        drafts.bar();
        return lose("You may not edit any more. An administrator can give you the right back.", "Copy your text before you leave this page.");
      }
      if (response.status === 404) {
        drafts.orphan();
        return lose("The process was deleted.", "Your text is kept in this browser, and offered for a new process.");
      }
      if (!response.ok) return;
      const state = await response.json();
      if (state.user !== user) return signedOut(); // another one has signed in
      if (!state.held) return lose(state.text);
      if (held) showAskers(state.requests);
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

  let judging = false; // whether the form can go
  form.addEventListener("submit", async (event) => {
    if (leaving) {
      sent = Date.now();
      return drafts.carry();
    }
    const by = event.submitter;
    event.preventDefault();
    if (judging) return;
    judging = true;
    if (drafts.away()) await drafts.flush(); // it may be back
    leaving = !drafts.away() && await drafts.send();
    judging = false;
    if (leaving) setTimeout(() => form.requestSubmit(by ?? undefined)); // not within the event that is stopped
    else drafts.unreached(by?.id === "cancel" ? "Nothing was done" : "Nothing was saved");
  });

  // As on the page before: another tab of the same lock keeps it when this one goes.
  const twins = new BroadcastChannel(`gatehouse.lock.${lock}`);
  twins.onmessage = () => setTimeout(() => { if (held && !leaving) extend(); }, 1000);
  globalThis.navigation?.addEventListener("navigate", (event) => {
    reloading = event.navigationType === "reload";
    if (!event.formData) uncarry();
  });
  // As on the page before, the lock is given back a little later: this one may be back at once.
  window.addEventListener("pagehide", () => {
    if (leaving) return;
    drafts.last();
    if (!held || reloading) return;
    sessionStorage.setItem(left(process), "true");
    twins.postMessage("");
    ask(`${here}/edit/release`, { lock, soon: "true" }, { keepalive: true, signal: undefined }).catch(() => {});
  });
  if (held) extend();
  if (wasGiven(lock) && document.hidden) { // its user looks at another tab
    badge("Yours:");
    document.addEventListener("visibilitychange", () => {
      badge("");
      shown = "[]";
      check();
    }, { once: true });
  }
})();

// The page on which a user decides between two texts. What is written there is chosen with it, and
// kept as the draft; the lock follows the hands, as on the page before.
"use strict";
(() => {
  const form = document.getElementById("conflict");
  if (!form) return;
  const { active, ask, note } = window.gatehouse;
  const { process, lock } = form.dataset;
  const every = 20_000; // in milliseconds

  // The draft is what the user would have if nothing more was decided: their own text, but for what
  // they wrote here.
  const read = (name) => form.elements[`${name}.${form.elements[`${name}.choice`].value === "edited" ? "edited" : "mine"}`].value;
  const drafts = window.gatehouse.drafts(form, { signedOut: () => drafts.keep(), forbidden() {}, read, base: form.elements.began.value });

  let extended = 0;
  let planned = 0;
  const extend = async () => {
    planned = 0;
    extended = Date.now();
    try {
      const response = await ask(`/processes/${process}/edit/extend`, { lock });
      if (response.ok) active();
      if (response.status !== 409) return;
      const { text } = await response.json();
      note("lost", form, { kind: "notice failed", role: "alert", parts: [`${text} Press Save all the same: what you decided is kept, and you see how to go on.`] });
    } catch {
      // The server is away, as the drafts say.
    }
  };
  // Two long texts are read for longer than a lock lasts.
  const follow = () => { planned ||= setTimeout(extend, Math.max(0, extended + every - Date.now())); };
  for (const kind of ["input", "keydown", "pointermove", "scroll"]) document.addEventListener(kind, follow, { passive: true });

  let leaving = false;
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
    leaving = !drafts.away() && await drafts.send();
    if (leaving) setTimeout(() => form.requestSubmit(event.submitter ?? undefined)); // not within the event that is stopped
    else drafts.unreached("Nothing was saved");
  });
  window.addEventListener("pagehide", () => { if (!leaving) drafts.last(); });
  extend();
})();

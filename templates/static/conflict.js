// The page on which a user decides between two texts. What is written there is chosen with it, and kept
// as the draft; the lock follows the hands, as on the page before.
"use strict";
(() => {
  const form = document.getElementById("conflict");
  if (!form) return;
  const { ask, note } = window.gatehouse;
  const { process, lock } = form.dataset;
  const pause = { extend: 20_000, draft: 1000, patience: 5000 }; // in milliseconds
  const user = form.elements.user?.value ?? "";
  const draft = `/api/v1/processes/${process}/draft?${new URLSearchParams({ user })}`;

  let extended = 0;
  let planned = 0;
  const extend = async () => {
    planned = 0;
    extended = Date.now();
    try {
      const response = await ask(`/processes/${process}/edit/extend`, { lock });
      if (response.status !== 409) return;
      const { text } = await response.json();
      note("lost", form, { kind: "notice failed", role: "alert", parts: [`${text} Press Save all the same: what you decided is kept, and you see how to go on.`] });
    } catch {
      // The server is away: with the next input.
    }
  };

  // text is what the user would have if nothing more was decided: their own, but for what they wrote.
  const text = () => {
    const data = new FormData(form);
    const mine = (name) => data.get(`${name}.${data.get(`${name}.choice`) === "edited" ? "edited" : "mine"}`);
    return JSON.stringify({ title: mine("title"), status: mine("status"), description: mine("description"), baseVersion: Number(data.get("began")) });
  };
  let kept = text();
  let known = form.elements.draft.value;
  let due = 0;
  let writing = null; // a promise
  const write = async () => {
    const body = text();
    if (body === kept) return;
    try {
      const response = await fetch(draft, { method: "PUT", headers: { "Content-Type": "application/json" }, body, signal: AbortSignal.timeout(pause.patience) });
      if (!response.ok) return;
      kept = body;
      known = (await response.json()).savedAt;
    } catch {
      // The server is away: with the next input.
    }
  };
  const plan = () => {
    clearTimeout(due);
    due = setTimeout(async () => {
      await writing;
      writing = write();
    }, pause.draft);
  };
  form.addEventListener("formdata", ({ formData }) => formData.set("draft", known));

  let leaving = false;
  form.addEventListener("input", ({ target }) => {
    leaving = false; // or the page would be gone
    if (target.name.endsWith(".edited")) document.getElementById(`${target.id}-edited`).checked = true;
    plan();
    planned ||= setTimeout(extend, Math.max(0, extended + pause.extend - Date.now()));
  });

  // A draft that comes after what is saved would be left over.
  form.addEventListener("submit", async (event) => {
    clearTimeout(due);
    if (leaving) return;
    leaving = true;
    if (!writing) return;
    event.preventDefault();
    await writing;
    setTimeout(() => form.requestSubmit(event.submitter ?? undefined)); // not within the event that is stopped
  });
  window.addEventListener("pagehide", () => {
    const body = text();
    if (leaving || body === kept || !due) return;
    fetch(draft, { method: "PUT", headers: { "Content-Type": "application/json" }, body, keepalive: true }).catch(() => {});
  });
  extend();
})();

// The form of a new process. It has no draft: this browser keeps what is typed until it was created.
"use strict";
(() => {
  const form = document.querySelector("form[action='/processes/new']");
  const { active, ask, missing, load, clock, uncarry, copies: copiesOf, texts: { fields, same } } = window.gatehouse;
  const user = form.elements.user.value;
  const copies = copiesOf(`gatehouse.new.${user}`);
  const text = () => Object.fromEntries(fields.map((name) => [name, form.elements[name].value]));
  const written = () => text().title || text().description;
  let unkept = false; // the browser has no room for it
  // Of a text whose process was deleted, that process, and when the draft was stored that goes with it.
  const { from, draft } = form.elements;
  const keep = () => {
    const at = copies.keep({ ...text(), from: from.value, known: draft.value, at: Date.now() });
    unkept = !at;
    return at;
  };
  window.addEventListener("beforeunload", (event) => { if (unkept && written()) event.preventDefault(); });

  form.autocomplete = "off"; // the browser would bring back a part of it
  const offered = {
    useless: (found) => same(found, text()),
    words: (found) => ["This browser kept a text from ", clock(found.at), " that was not created. "],
    use(found) {
      if (written()) { // it is offered in turn
        if (!keep()) return copies.noRoom(form);
        copies.begin();
      }
      for (const name of fields) form.elements[name].value = found[name];
      [from.value, draft.value] = [found.from ?? "", found.known ?? ""];
      copies.drop(found.key); // its room is free
      keep();
    },
  };
  // stay keeps the session of a user who types, which no draft does. It goes without the header of
  // ask, so that the server counts it.
  let stayed = performance.now();
  const stay = async () => {
    if (performance.now() - stayed < 60_000) return;
    stayed = performance.now();
    const { ok } = await fetch("/api/v1/auth/session").catch(() => ({ ok: false }));
    if (ok) active();
  };

  // What was typed for a process that was deleted is for a new one.
  const adopt = async () => {
    let moved = false;
    const drafts = `gatehouse.draft.${user}.`;
    const processes = new Set(Object.keys(localStorage).filter((key) => key.startsWith(drafts)).map((key) => key.slice(drafts.length).split(".")[0]));
    for (const process of processes) {
      try {
        if (!missing(await ask(`/api/v1/processes/${process}`))) continue;
        await copiesOf(`${drafts}${process}`).moveTo(`gatehouse.new.${user}`);
        moved = true;
      } catch {
        // The server is away.
      }
    }
    if (moved) copies.offer(form, offered);
  };
  if (written()) keep(); // the server did not create it, or it was typed before this script came
  copies.offer(form, offered);
  adopt();
  form.addEventListener("input", () => {
    uncarry(); // the form that was sent does not have it
    if (written()) {
      keep();
    } else {
      from.value = draft.value = "";
      copies.drop();
    }
    stay();
  });
  // After app.js, which stops a second press.
  document.addEventListener("submit", (event) => {
    if (event.target !== form || event.defaultPrevented) return;
    unkept = false;
    copies.carry();
  });
  // Another user may have signed in, in another tab.
  document.addEventListener("visibilitychange", () => { if (!document.hidden && user === document.body.dataset.user) load("/processes/new", () => { if (!written() || keep()) location.assign("/processes/new"); }); });
})();

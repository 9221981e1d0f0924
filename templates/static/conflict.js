// The page on which a user decides between two texts. What is written there is chosen with it, and
// kept as the draft. held.js keeps the lock and the text, as on the page before.
"use strict";
(() => {
  const form = document.getElementById("conflict");
  if (!form) return;
  const { ask, note, unnote, button, paragraph, clock, badge, bdi } = window.gatehouse;
  const { process, lock } = form.dataset;
  const here = `/processes/${process}`;

  // What was written before this script came is chosen, too.
  let chosen = false;
  const unix = (text) => text.replaceAll("\r\n", "\n");
  for (const field of form.querySelectorAll("[name$='.edited']")) {
    const name = field.name.replace(".edited", "");
    if (!form.elements[`${name}.choice`].value && unix(field.value) !== unix(form.elements[`${name}.proposed`].value)) chosen = document.getElementById(`${name}-edited`).checked = true;
  }
  // The draft is what the user would have if nothing more was decided: their own text, but for what
  // they wrote here.
  const read = (name) => form.elements[`${name}.${form.elements[`${name}.choice`].value === "edited" ? "edited" : "mine"}`].value;
  const { drafts, ...hold } = window.gatehouse.held(form, {
    read, base: form.elements.began.value,
    state: ({ requests }) => showAskers(requests),
    lost: (state, { first, tell }) => {
      if (first) for (const id of ["asked", "countdown"]) unnote(id);
      if (!tell) return;
      const next = state.deleted ? "Your text is kept in this browser, and offered for a new process."
        : state.barred ? "Copy your text before you leave this page."
          : "Press Save all the same: what you decided is kept, and you see how to go on.";
      note("lost", form, { kind: "notice failed", role: "alert", parts: [`${state.text} ${next}`] });
    },
    count: () => count(),
    focus: () => field.focus({ preventScroll: true }),
  });
  // Where the user was last: the focus goes back there from a button that goes.
  let field = form.querySelector(".primary");
  form.addEventListener("focusin", ({ target }) => { if (target.name) field = target; });
  // What is written over, by a choice or in its field, is set aside until it is decided.
  const names = window.gatehouse.texts.fields;
  const now = () => ({ text: Object.fromEntries(names.map((name) => [name, read(name)])), edited: names.filter((name) => form.elements[`${name}.choice`].value === "edited").join() });
  let before = now();
  if (chosen) drafts.setAside(Object.fromEntries(names.map((name) => [name, form.elements[`${name}.mine`].value])));
  form.addEventListener("input", ({ target }) => {
    if (target.name.endsWith(".edited")) document.getElementById(`${target.id}-edited`).checked = true;
    const after = now();
    if (after.edited !== before.edited) drafts.setAside(before.text);
    before = after;
  }, { capture: true }); // before held.js reads the text
  // Two long texts are read for longer than a lock lasts.
  for (const kind of ["keydown", "pointermove", "scroll"]) document.addEventListener(kind, hold.follow, { passive: true });

  // answer is a word to who asks for the lock.
  const answer = async (word, { id }) => {
    try {
      await drafts.flush();
      const response = await ask(`${here}/edit/answer`, { lock, answer: `${word} ${id}` });
      if (!response.ok) throw new Error(response.statusText);
      unnote("told");
      if (!response.redirected) return hold.check(); // also where the request had been taken back
      hold.given();
      location.assign(here);
    } catch {
      note("told", form, { kind: "notice failed", role: "alert", parts: ["Nothing was answered. Try again in a moment."] });
      hold.check();
    }
  };
  let shown = []; // who asks
  const count = () => badge(shown.length ? `(${shown.length})` : "");
  const showAskers = (requests) => {
    if (JSON.stringify(requests) === JSON.stringify(shown)) return;
    shown = requests;
    count();
    const focused = document.getElementById("asked")?.contains(document.activeElement);
    if (!requests.length) return unnote("asked");
    const box = note("asked", form, { parts: requests.flatMap((asked) => [
      paragraph(asked.by.email, " asks to edit", ...(asked.message ? [": “", bdi(asked.message), "”"] : []), `. Without an answer they get it at `, clock(asked.answerBy), ", unless you are typing then."),
      button("Give it, and keep my text", () => answer("give", asked)), " ", button("5 more minutes", () => answer("later", asked)), " ", button("No", () => answer("no", asked)),
    ]) });
    if (focused) box.querySelector("button").focus();
  };
})();

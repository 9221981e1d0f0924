// The page on which a process is edited; templates/page_edit.html says what it relies on. held.js
// keeps the lock and the text; here is what the page shows of them.
"use strict";
(() => {
  const form = document.getElementById("edit");
  if (!form) return;
  const { ask, load, note, unnote, banner, button, paragraph, clock, badge } = window.gatehouse;
  const { process, user, lock } = form.dataset;
  const here = `/processes/${process}`;
  const page = `${here}/edit?${new URLSearchParams({ lock })}`;
  const [line, panel] = ["lock-line", "requests"].map((id) => document.getElementById(id));

  const items = (of) => [...of.querySelectorAll("li[data-request]")];
  const count = () => { // of those who wait for a word
    const asked = panel.querySelectorAll("li[data-request]:not([data-later])").length;
    badge(asked ? `(${asked})` : "");
  };
  if (panel) {
    panel.setAttribute("aria-live", "polite");
    count();
  }

  const { drafts, ...hold } = window.gatehouse.held(form, {
    // It waits for both: an older answer must not come after a newer one.
    state: (state) => Promise.all([changed(state), line && shown() !== wanted(state) && update()]),
    ends: (at) => {
      const left = document.querySelector("#lock-line .left");
      if (left) left.dataset.until = at;
    },
    focus: () => field.focus(),
    lost: (state, news) => lose(state, news),
    count,
  });
  const changed = window.gatehouse.changed(form, drafts);

  // Where the user typed last: the focus goes back there from a button that goes.
  let field = form.elements.title;
  form.addEventListener("focusin", ({ target }) => { if (target.matches("[name=title], [name=status], [name=description]")) field = target; });

  // shown is what the page says of those who want the lock, and whether it is sure; a state says the
  // same in wanted.
  const shown = () => JSON.stringify([line.dataset.waiting, Boolean(banner(document)), items(panel).map(({ dataset }) => [dataset.request, dataset.answerBy])]);
  const wanted = (state) => JSON.stringify([String(state.waiting), state.degraded, state.requests.map(({ id, answerBy }) => [id, String(answerBy)])]);

  // update puts in the parts of the page that others change: who waits, and who asks.
  const update = async () => {
    const fresh = await load(page, hold.signedOut);
    const [now, list] = ["lock-line", "requests"].map((id) => fresh?.getElementById(id));
    if (!now || !list || !hold.held()) return;
    const [old, says] = [banner(document), banner(fresh)];
    if (old?.textContent !== says?.textContent) {
      old?.remove();
      if (says) form.before(says);
    }
    now.querySelectorAll(".left").forEach((left) => { left.dataset.until = hold.expires(); });
    const focused = line.contains(document.activeElement);
    line.replaceChildren(...now.childNodes);
    line.dataset.waiting = now.dataset.waiting;
    if (focused) (line.querySelector("a") ?? field).focus();
    updateList(list);
    document.dispatchEvent(new Event("gatehouse:changed"));
  };

  // updateList changes the requests one by one: the button that has the focus, or is being pressed,
  // stays as long as its request does.
  const updateList = (fresh) => {
    const focused = panel.contains(document.activeElement);
    const news = new Map(items(fresh).map((item) => [item.dataset.request, item]));
    for (const item of items(panel)) {
      const now = news.get(item.dataset.request);
      news.delete(item.dataset.request);
      if (!now) {
        item.remove();
      } else if (now.dataset.answerBy !== item.dataset.answerBy) {
        const words = now.querySelectorAll("p");
        item.querySelectorAll("p").forEach((part, i) => part.replaceWith(words[i]));
        item.dataset.answerBy = now.dataset.answerBy;
        item.toggleAttribute("data-later", now.hasAttribute("data-later"));
      }
    }
    panel.querySelector("ul").append(...news.values());
    panel.hidden = fresh.hidden;
    count();
    if (focused && !panel.contains(document.activeElement)) (panel.querySelector("button") ?? field).focus();
  };
  // timed is how the lock ended, in words, with the time as the reader writes it.
  const timed = ({ text, clock: words, endedBy }) => {
    const at = words ? text.indexOf(words) : -1;
    return at < 0 ? [text] : [text.slice(0, at), clock(endedBy.at), text.slice(at + words.length)];
  };

  // lose says how the lock ended, and how to go on with the text.
  const lose = (state, { first, tell }) => {
    const button = (text, action, name) => {
      const made = document.createElement("button");
      Object.assign(made, { textContent: text, formAction: action, formNoValidate: true, className: "primary" });
      if (name) Object.assign(made, { name, value: "true" });
      return made;
    };
    const goOn = () => {
      if (state.barred) return null;
      if (state.deleted) return button("Make a new process from this text", "/processes/new");
      if (!state.holder) return button("Edit again with this text", `${here}/edit`);
      if (state.holder.userId === user) return button("Go on here", `${here}/edit`, "takeOver");
      if (state.takeOver) return button("Take it over with this text", `${here}/edit`, "takeOver");
      return button("Ask for it", `${here}/ask`);
    };
    const actions = form.querySelector(":scope > .actions");
    const pressed = actions.contains(document.activeElement) && document.activeElement.id !== "cancel";
    if (first) {
      form.dataset.held = "false";
      for (const id of ["countdown", "told", "changed", "draft-note", "lock-line", "requests"]) unnote(id); // one notice for one thing
      document.querySelectorAll("button[name=then]").forEach((save) => save.remove());
    }
    const cancel = document.getElementById("cancel");
    if (state.deleted || state.barred) cancel?.remove(); // no draft can be kept
    else if (cancel) cancel.textContent = "Leave, and keep the text";
    if (tell) {
      note("lost", form, {
        kind: state.calm ? "notice" : "notice failed", role: "alert",
        parts: [paragraph(...timed(state)), paragraph(`You cannot save it now. Your text is here${state.deleted || state.barred ? "" : ", and kept for you until you save or discard it"}.`)],
      });
    }
    const next = goOn();
    const shown = actions.querySelector(":scope > .primary");
    if (shown?.textContent === next?.textContent) return;
    shown?.remove();
    if (!next) return;
    actions.prepend(next);
    if (pressed) next.focus();
  };

  // An answer to who asks needs no other page, unless the lock is given away. The draft has the text.
  const answer = async (by) => {
    const tell = ({ text, failed }) => note("told", panel, { kind: failed ? "notice failed" : "notice", role: failed ? "alert" : "status", parts: [text] });
    const unheard = (why) => tell({ text: `Nothing was answered: ${why}. Try again in a moment.`, failed: true });
    try {
      await drafts.flush();
      const response = await ask(by.formAction, { lock, [by.name]: by.value });
      if ([401, 409, 428].includes(response.status)) return hold.check(); // which says why
      if (!response.ok) return unheard(response.status < 500 ? "the server does not accept it" : "the server cannot be reached");
      tell(await response.json());
      await update();
    } catch {
      unheard("the server cannot be reached");
    }
  };

  form.addEventListener("submit", (event) => {
    const by = event.submitter;
    if (by?.name !== "answer" || by.value.startsWith("give ")) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    answer(by);
  }, { capture: true }); // before held.js takes it for a form that goes
  const discard = document.getElementById("discard");
  discard?.addEventListener("submit", async (event) => {
    if (!hold.leave()) return;
    event.preventDefault();
    await drafts.stop();
    setTimeout(() => discard.requestSubmit()); // not within the event that is stopped
  });
})();

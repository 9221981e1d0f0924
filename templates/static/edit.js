// The page on which a process is edited; templates/page_edit.html says what it relies on. The lock
// follows the hands: it is extended while there is input, never because a tab is open. Who loses it
// hears why, and keeps the text.
"use strict";
(() => {
  const form = document.getElementById("edit");
  if (!form) return;
  const { listen, active, ask, load, note, unnote, banner, button, paragraph, clock, badge, uncarry, left: leftKey, wasGiven } = window.gatehouse;
  const { process, user, lock } = form.dataset;
  const every = { extend: 20_000, state: 15_000 }; // in milliseconds
  const warn = 60; // seconds before the end
  const here = `/processes/${process}`;
  const page = `${here}/edit?${new URLSearchParams({ lock })}`;
  const [line, panel] = ["lock-line", "requests"].map((id) => document.getElementById(id));

  let held = form.dataset.held === "true";
  let expires = Number(form.dataset.expires); // by the server's clock
  let ahead = Date.now() - Number(document.body.dataset.now); // this clock before the server's
  let leaving = false; // for a page of ours, which decides about the lock
  let sent = 0; // when the form was sent
  let reloading = false;

  // Signed out, or another user is signed in: the text stays in this browser, the page does not. The
  // answer to a form does, as loading it again would send that form again.
  const signedOut = () => {
    drafts.keep();
    leaving = true;
    if (new URLSearchParams(location.search).has("lock")) location.reload();
  };
  const drafts = window.gatehouse.drafts(form, { signedOut, refused: () => check() }); // which finds out why

  const changed = window.gatehouse.changed(form, drafts);

  const setEnd = (answer) => {
    ahead = Date.now() - answer.now;
    expires = answer.expires;
    const left = document.querySelector("#lock-line .left");
    if (left && expires) left.dataset.until = expires;
  };

  let typed = 0;
  let told = 0; // when the server last extended the lock
  let extended = 0;
  let planned = 0;
  const extend = async () => {
    clearTimeout(planned);
    planned = 0;
    extended = Date.now();
    try {
      const response = await ask(form.dataset.extend, { lock });
      if (response.ok) {
        setEnd(await response.json());
        told = Date.now();
        active();
        return "extended";
      }
      if (response.status < 500) {
        if (response.status === 401) signedOut();
        else check();
        return "refused"; // they say why
      }
    } catch {
      // As with 5xx.
    }
    extended = 0; // with the next input; the drafts say that the server is away
    return "away";
  };
  // keepLock is for who wants the lock, and types nothing: no draft says that the server is away.
  const keepLock = async () => {
    field.focus();
    const outcome = await extend();
    if (outcome === "extended") unnote("unsaved");
    if (outcome === "away") drafts.unreached("The time was not extended");
  };
  const follow = () => {
    if (!held || planned) return;
    planned = setTimeout(extend, Math.max(0, extended + every.extend - Date.now()));
  };
  // Where the user typed last: the focus goes back there from a button that goes.
  let field = form.elements.title;
  form.addEventListener("focusin", ({ target }) => { if (target.matches("[name=title], [name=status], [name=description]")) field = target; });
  form.addEventListener("input", (event) => {
    if (!event.target.name) return;
    if (sent && Date.now() - sent > 5000) { // it has not gone: its user has stopped that, or waits
      sent = 0;
      leaving = false;
      drafts.resume();
      check();
    }
    typed = Date.now();
    drafts.changed();
    follow();
  });

  // check asks how the lock stands. It does not count as activity.
  let checked = 0;
  let checking = false;
  let again = false;
  const check = async () => {
    if (leaving) return;
    if (checking) {
      again = true;
      return;
    }
    checking = true;
    checked = Date.now();
    try {
      const response = await ask(`${form.dataset.state}?${new URLSearchParams({ lock })}`);
      if (leaving) return;
      if (response.status === 401) signedOut();
      // Their rights have changed, if it is not another user who has signed in.
      if (response.status === 403 && await load(here, signedOut)) lose({ text: "You may not edit any more. An administrator can give you the right back.", calm: false, barred: true });
      if (response.ok) await apply(await response.json());
      if (response.status === 404) lose({ text: "The process was deleted.", calm: false, deleted: true });
    } catch {
      // The server is away.
    } finally {
      checking = false;
      if (again) {
        again = false;
        check();
      }
    }
  };

  // shown is what the page says of those who want the lock, and whether it is sure; a state says the
  // same in wanted.
  const items = (of) => [...of.querySelectorAll("li[data-request]")];
  const shown = () => JSON.stringify([line.dataset.waiting, Boolean(banner(document)), items(panel).map(({ dataset }) => [dataset.request, dataset.answerBy])]);
  const wanted = (state) => JSON.stringify([String(state.waiting), state.degraded, state.requests.map(({ id, answerBy }) => [id, String(answerBy)])]);
  const apply = async (state) => {
    if (state.user !== user) return signedOut(); // another one has signed in
    if (!state.held) return lose(state);
    if (!held) return;
    setEnd(state);
    // check waits for both: an older answer must not come after a newer one.
    await Promise.all([changed(state), line && shown() !== wanted(state) && update()]);
  };

  // update puts in the parts of the page that others change: who waits, and who asks.
  const update = async () => {
    const fresh = await load(page, signedOut);
    const [now, list] = ["lock-line", "requests"].map((id) => fresh?.getElementById(id));
    if (!now || !list || !held) return;
    const [old, says] = [banner(document), banner(fresh)];
    if (old?.textContent !== says?.textContent) {
      old?.remove();
      if (says) form.before(says);
    }
    now.querySelectorAll(".left").forEach((left) => { left.dataset.until = expires; });
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
  const count = () => { // of those who wait for a word
    const asked = panel.querySelectorAll("li[data-request]:not([data-later])").length;
    badge(asked ? `(${asked})` : "");
  };
  if (panel) {
    panel.setAttribute("aria-live", "polite");
    count();
  }

  // timed is how the lock ended, in words, with the time as the reader writes it.
  const timed = ({ text, clock: words, endedBy }) => {
    const at = words ? text.indexOf(words) : -1;
    return at < 0 ? [text] : [text.slice(0, at), clock(endedBy.at), text.slice(at + words.length)];
  };

  let lostAt = 0;
  let lostText = "";
  // lose says how the lock ended, and how to go on with the text.
  const lose = (state) => {
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
    if (held) {
      held = false;
      form.dataset.held = "false";
      if (state.barred) drafts.bar();
      else if (!state.deleted) drafts.flush();
      for (const id of ["countdown", "told", "changed", "draft-note", "lock-line", "requests"]) unnote(id); // one notice for one thing
      document.querySelectorAll("button[name=then]").forEach((save) => save.remove());
      lostAt = Date.now();
      for (const wait of [400, 1500]) setTimeout(check, wait); // who did it may be known a little later
    }
    if (state.deleted) drafts.orphan();
    const cancel = document.getElementById("cancel");
    if (state.deleted || state.barred) cancel?.remove(); // no draft can be kept
    else if (cancel) cancel.textContent = "Leave, and keep the text";
    if (state.text !== lostText && (state.deleted || Date.now() - lostAt < 3000)) {
      lostText = state.text;
      badge(state.calm ? "" : "!");
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

  const countDown = () => {
    if (!held || !expires) return;
    const left = Math.ceil((expires - (Date.now() - ahead)) / 1000);
    if (left > warn) return unnote("countdown");
    if (left <= 5) drafts.flush();
    if (left <= 0) return check();
    if (document.getElementById("countdown")) return;
    // A screen reader would say each second that passes.
    const [rest, said] = ["left", "visually-hidden"].map((className) => Object.assign(document.createElement("span"), { className }));
    Object.assign(rest, { textContent: `${left} s`, ariaHidden: "true" });
    said.textContent = "a minute";
    rest.dataset.until = expires;
    const why = typed > told + every.extend ? "The time could not be extended." : "You have not typed for a while.";
    note("countdown", form, { role: "alert", parts: [`${why} Others can edit in `, rest, said, ". ", button("Keep it", keepLock)] });
  };
  setInterval(() => {
    countDown();
    if (Date.now() - checked >= every.state) check();
  }, 500);

  listen({
    heard: (kind, event) => {
      if (event.resource === `process:${process}` && (kind !== "extended" || event.waiting)) check();
    },
    look: check,
    hidden: () => held, // or its user would not hear that others ask for it
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) check(); });

  // An answer to who asks needs no other page, unless the lock is given away. The draft has the text.
  const answer = async (by) => {
    const tell = ({ text, failed }) => note("told", panel, { kind: failed ? "notice failed" : "notice", role: failed ? "alert" : "status", parts: [text] });
    const unheard = (why) => tell({ text: `Nothing was answered: ${why}. Try again in a moment.`, failed: true });
    try {
      await drafts.flush();
      const response = await ask(by.formAction, { lock, [by.name]: by.value });
      if ([401, 409, 428].includes(response.status)) return check(); // which says why
      if (!response.ok) return unheard(response.status < 500 ? "the server does not accept it" : "the server cannot be reached");
      tell(await response.json());
      await update();
    } catch {
      unheard("the server cannot be reached");
    }
  };

  let judging = false; // whether the form can go
  form.addEventListener("submit", async (event) => {
    const by = event.submitter;
    if (by?.name === "answer" && !by.value.startsWith("give ")) {
      event.preventDefault();
      return answer(by);
    }
    if (leaving) {
      sent = Date.now();
      return drafts.carry();
    }
    event.preventDefault();
    if (judging) return;
    judging = true;
    if (drafts.away()) await drafts.flush(); // it may be back
    leaving = !drafts.away() && await drafts.send();
    judging = false;
    if (!leaving) return drafts.unreached(by?.name === "then" ? "Nothing was saved" : "Nothing was done");
    setTimeout(() => form.requestSubmit(by ?? undefined)); // not within the event that is stopped
  });
  const discard = document.getElementById("discard");
  discard?.addEventListener("submit", async (event) => {
    if (leaving) return;
    event.preventDefault();
    leaving = true;
    sent = Date.now();
    await drafts.stop();
    setTimeout(() => discard.requestSubmit()); // not within the event that is stopped
  });

  // Another tab of the same lock, as of a tab that was duplicated, keeps it when this one goes.
  const twins = new BroadcastChannel(`gatehouse.lock.${lock}`);
  twins.onmessage = () => setTimeout(() => { if (held && !leaving) extend(); }, 1000);

  // The lock is given back when the page goes: a little later, as it may be back at once.
  globalThis.navigation?.addEventListener("navigate", (event) => {
    reloading = event.navigationType === "reload";
    if (!event.formData) uncarry();
  });
  window.addEventListener("pagehide", () => {
    if (leaving) return;
    drafts.last();
    if (!held || reloading) return;
    sessionStorage.setItem(leftKey(process), "true");
    twins.postMessage("");
    ask(form.dataset.release, { lock, soon: "true" }, { keepalive: true, signal: undefined }).catch(() => {});
  });
  sessionStorage.removeItem(leftKey(process));
  if (held) extend();
  if (wasGiven(lock) && held && document.hidden) { // its user looks at another tab
    badge("Yours:");
    document.addEventListener("visibilitychange", count, { once: true });
  }
})();

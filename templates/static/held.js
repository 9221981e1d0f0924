// A form whose user holds a lock. The lock follows the hands: it is extended while there is input,
// never because a tab is open, and given back when the page goes. What is typed is kept as a draft,
// with the lock and without.
"use strict";
// page.state hears how the lock stands, page.ends when it ends, page.lost how it ended, with whether
// that is new ({first}) and has not been told ({tell}). page.count sets the badge of the tab to how many
// ask, page.focus the focus to where its user typed. page.read and page.base are for drafts.js.
window.gatehouse.held = (form, page) => {
  const { listen, active, ask, missing, load, note, unnote, button, badge, uncarry, left: leftKey, wasGiven } = window.gatehouse;
  const { process, user, lock } = form.dataset;
  const every = { extend: 20_000, state: 15_000 }; // in milliseconds
  const here = `/processes/${process}`;
  let held = form.dataset.held === "true";
  let leaving = false; // for a page of ours, which decides about the lock
  let sent = 0; // when the form was sent
  let reloading = false;

  // Signed out, or another user is signed in: the text stays in this browser, the page does not. The
  // answer to a form does: what it says of the text would be gone.
  const answered = !new URLSearchParams(location.search).has("lock");
  const signedOut = (another = false) => {
    if (leaving) return;
    leaving = true;
    if (drafts.keep() && (another || !page.read) && !answered) location.reload();
  };
  const drafts = window.gatehouse.drafts(form, { signedOut, refused: () => check(), read: page.read, base: page.base }); // check finds out why
  // A reload of the answer to a form would send that form again, with an older text.
  if (answered && lock) history.replaceState(null, "", `${here}/edit?${new URLSearchParams({ lock })}`);

  // Times of this page (performance.now), as a clock may be set back by an hour.
  let extended = -Infinity; // when it was asked for
  let told = -Infinity; // when the server did so
  let typed = -Infinity; // or whatever else keeps the lock
  let planned = 0;
  let expires = Number(form.dataset.expires ?? 0); // by the server's clock
  let ahead = Date.now() - Number(document.body.dataset.now); // this clock before the server's
  const setEnd = (answer) => {
    ahead = Date.now() - answer.now;
    expires = answer.expires;
    if (expires) page.ends?.(expires);
  };
  const extend = async () => {
    clearTimeout(planned);
    planned = 0;
    if (leaving || !held) return "refused"; // since it was planned
    extended = performance.now();
    try {
      const response = await ask(`${here}/edit/extend`, { lock });
      if (response.ok) {
        setEnd(await response.json());
        told = performance.now();
        active();
        return "extended";
      }
      if (response.status < 500 && (response.status !== 404 || missing(response))) {
        if (response.status === 401) signedOut();
        else check();
        return "refused"; // they say why
      }
    } catch {
      // As with 5xx.
    }
    extended = -Infinity; // with the next input; the drafts say that the server is away
    return "away";
  };
  const follow = () => {
    typed = performance.now();
    if (held && !leaving) planned ||= setTimeout(extend, Math.max(0, extended + every.extend - performance.now()));
  };

  const deleted = "The process was deleted.";
  // check asks how the lock stands. It does not count as activity.
  let checked = -Infinity;
  let checking = false;
  let again = false;
  const check = async () => {
    if (leaving) return;
    if (checking) {
      again = true;
      return;
    }
    checking = true;
    checked = performance.now();
    try {
      const response = await ask(`${here}/edit/state?${new URLSearchParams({ lock })}`);
      if (leaving) return;
      if (response.status === 401) signedOut();
      // Their rights have changed, if it is not another user who has signed in.
      if (response.status === 403 && await load(here, () => signedOut(true))) lose({ text: "You may not edit any more. An administrator can give you the right back.", barred: true });
      if (missing(response)) lose({ text: deleted, deleted: true });
      if (response.ok) await apply(await response.json());
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
  const apply = (state) => {
    if (state.user !== user) return signedOut(true); // another one has signed in
    if (!state.held) return lose(state);
    if (!held) return null;
    setEnd(state);
    return page.state(state);
  };

  let lostAt = -Infinity;
  let said = "orphaned" in form.dataset ? deleted : "";
  // lose hears how the lock ended. It may hear a little later who did it, and long after that there is
  // no way on any more: the page tells these, too.
  const lose = (state) => {
    const first = held;
    held = false;
    if (state.barred) drafts.bar();
    else if (state.deleted) drafts.orphan();
    else if (first) drafts.flush();
    if (first) {
      lostAt = performance.now();
      for (const wait of [400, 1500]) setTimeout(check, wait);
    }
    const tell = state.text !== said && (state.deleted || state.barred || performance.now() - lostAt < 3000);
    if (tell) {
      said = state.text;
      badge(state.calm ? "" : "!");
    }
    page.lost(state, { first, tell });
  };

  // keepLock is for who wants the lock, and types nothing: no draft says that the server is away.
  const keepLock = async () => {
    const outcome = await extend();
    if (outcome === "extended") {
      page.focus();
      unnote("unsaved");
    }
    if (outcome === "away") drafts.unreached("The time was not extended");
  };
  const warn = 60; // seconds before the end
  const countDown = () => {
    if (!held || !expires) return;
    const left = Math.ceil((expires - (Date.now() - ahead)) / 1000);
    if (left > warn) return unnote("countdown");
    if (left <= 5) drafts.flush();
    if (left <= 0) return check();
    if (document.getElementById("countdown")) return;
    // A screen reader would say each second that passes.
    const [rest, aloud] = ["left", "visually-hidden"].map((className) => Object.assign(document.createElement("span"), { className }));
    Object.assign(rest, { textContent: `${left} s`, ariaHidden: "true" });
    aloud.textContent = "a minute";
    rest.dataset.until = expires;
    const why = typed > told + every.extend ? "The time could not be extended." : "You have not typed for a while.";
    note("countdown", form, { role: "alert", parts: [`${why} Others can edit in `, rest, aloud, ". ", button("Keep it", keepLock)] });
  };

  listen({
    heard: (kind, event) => {
      if (event.resource === `process:${process}` && (kind !== "extended" || event.waiting)) check();
    },
    look: check,
    hidden: () => held, // or its user would not hear that others ask for it
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) check(); });
  setInterval(() => {
    countDown();
    if (performance.now() - checked >= every.state) check();
  }, 500);

  // resume is for a form that was sent and has not gone.
  const resume = () => {
    sent = 0;
    leaving = false;
    drafts.resume();
    check();
  };
  form.addEventListener("input", ({ target }) => {
    if (!target.name) return;
    if (sent && performance.now() - sent > 5000) resume(); // its user has stopped that, or waits
    drafts.changed();
    follow();
  });

  let judging = false; // whether the form can go
  form.addEventListener("submit", async (event) => {
    const by = event.submitter;
    if (leaving) {
      sent = performance.now();
      return drafts.carry(!by?.formNoValidate); // to leave decides nothing
    }
    event.preventDefault();
    if (judging) return;
    judging = true;
    if (drafts.away()) await drafts.flush(); // it may be back
    leaving = !drafts.away() && await drafts.send();
    judging = false;
    if (!leaving) return drafts.unreached(by?.hasAttribute("formaction") ? "Nothing was done" : "Nothing was saved");
    setTimeout(() => { // not within the event that is stopped
      if (by?.isConnected !== false) form.requestSubmit(by ?? undefined);
      if (!sent) resume(); // its text is not valid any more, or the lock was lost
    });
  });

  // Who signs out at once after the last key has the draft all the same.
  const signsOut = ({ target }) => target.action.endsWith("/logout");
  let flushing = false;
  let flushed = false;
  document.addEventListener("submit", async (event) => {
    if (!signsOut(event) || flushed || leaving || !drafts.unsent()) return;
    event.preventDefault();
    event.stopImmediatePropagation(); // app.js takes the second for a double click
    if (flushing) return;
    flushing = true;
    await drafts.flush();
    if (drafts.unsent()) await drafts.flush(); // the first began before the last key
    flushed = true;
    event.target.requestSubmit(event.submitter);
    flushing = flushed = false;
  }, { capture: true });
  document.addEventListener("submit", (event) => { if (signsOut(event) && !event.defaultPrevented) drafts.signOut(); });

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
    const gives = held && !reloading;
    if (gives) {
      twins.postMessage("");
      ask(`${here}/edit/release`, { lock, soon: "true" }, { keepalive: true, signal: undefined }).catch(() => {});
    }
    drafts.last(); // after it, as it throws where the browser has no room
    if (gives) sessionStorage.setItem(leftKey(process), "true");
  });
  sessionStorage.removeItem(leftKey(process));
  if (held) extend();
  if (wasGiven(lock) && held && document.hidden) { // its user looks at another tab
    badge("Yours:");
    document.addEventListener("visibilitychange", page.count, { once: true });
  }

  return {
    drafts, follow, check, signedOut,
    held: () => held,
    expires: () => expires,
    // leave is for a form of the page's that decides about the lock; false if one goes already.
    leave() {
      if (leaving) return false;
      leaving = true;
      sent = performance.now();
      return true;
    },
    // given is for a lock that was given away.
    given() { held = false; },
  };
};

// A form whose user holds a lock. The lock follows the hands: it is extended while there is input,
// never because a tab is open, and given back when the page goes. What is typed is kept as a draft,
// with the lock and without.
"use strict";
// page.state hears how the lock stands, page.lost how it ended, with whether that is new ({first}) and
// has not been told ({tell}); page.extended, when the server has extended it; page.count sets the badge
// of the tab to how many ask. page.read and page.base are for drafts.js.
window.gatehouse.held = (form, page) => {
  const { listen, active, ask, load, badge, uncarry, left: leftKey, wasGiven } = window.gatehouse;
  const { process, user, lock } = form.dataset;
  const every = { extend: 20_000, state: 15_000 }; // in milliseconds
  const here = `/processes/${process}`;
  let held = form.dataset.held === "true";
  let leaving = false; // for a page of ours, which decides about the lock
  let sent = 0; // when the form was sent
  let reloading = false;

  // Signed out, or another user is signed in: the text stays in this browser, the page does not. The
  // answer to a form does, as loading it again would send that form again.
  const signedOut = (another = false) => {
    if (leaving) return;
    leaving = true;
    if (drafts.keep() && (another || !page.read) && new URLSearchParams(location.search).has("lock")) location.reload();
  };
  const drafts = window.gatehouse.drafts(form, { signedOut, refused: () => check(), read: page.read, base: page.base }); // check finds out why

  // Times of this page (performance.now), as a clock may be set back by an hour.
  let extended = -Infinity;
  let planned = 0;
  const extend = async () => {
    clearTimeout(planned);
    planned = 0;
    if (leaving || !held) return "refused"; // since it was planned
    extended = performance.now();
    try {
      const response = await ask(`${here}/edit/extend`, { lock });
      if (response.ok) {
        page.extended?.(await response.json());
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
    extended = -Infinity; // with the next input; the drafts say that the server is away
    return "away";
  };
  const follow = () => {
    if (held && !leaving) planned ||= setTimeout(extend, Math.max(0, extended + every.extend - performance.now()));
  };

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
      if (response.status === 404) lose({ text: "The process was deleted.", deleted: true });
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
    return held ? page.state(state) : null;
  };

  let lostAt = -Infinity;
  let told = "";
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
    const tell = state.text !== told && (state.deleted || state.barred || performance.now() - lostAt < 3000);
    if (tell) {
      told = state.text;
      badge(state.calm ? "" : "!");
    }
    page.lost(state, { first, tell });
  };

  listen({
    heard: (kind, event) => {
      if (event.resource === `process:${process}` && (kind !== "extended" || event.waiting)) check();
    },
    look: check,
    hidden: () => held, // or its user would not hear that others ask for it
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) check(); });
  setInterval(() => { if (performance.now() - checked >= every.state) check(); }, 500);

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
    drafts, extend, follow, check, signedOut,
    pace: every.extend,
    held: () => held,
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

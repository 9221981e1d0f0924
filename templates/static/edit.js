// The page on which a process is edited; templates/page_edit.html says what it relies on. The lock
// follows the hands: it is extended while there is input, never because a tab is open. Who loses it
// hears why, and keeps the text.
"use strict";
(() => {
  const form = document.getElementById("edit");
  if (!form) return;
  const { listen, ask, load, note, unnote, button, paragraph, badge, left: leftKey } = window.gatehouse;
  const { process, user, lock } = form.dataset;
  const every = { extend: 20_000, state: 1500, live: 15_000 }; // in milliseconds
  const warn = 60; // seconds before the end
  const page = location.href;
  const here = `/processes/${process}`;

  let held = form.dataset.held === "true";
  let expires = Number(form.dataset.expires); // by the server's clock
  let ahead = Date.now() - Number(document.body.dataset.now); // this clock before the server's
  let leaving = false; // for a page of ours, which decides about the lock
  let reloading = false;
  let live = false;

  // Signed out: the text stays in this browser, the page does not.
  const signedOut = () => {
    drafts.copy();
    leaving = true;
    location.reload();
  };
  const drafts = window.gatehouse.drafts(form, { signedOut });

  // The session lives as long as there is input, and app.js clears the page when it has ended.
  const idle = Number(document.body.dataset.ends) - Number(document.body.dataset.now);
  const active = () => { document.body.dataset.ends = Math.max(Number(document.body.dataset.ends), Date.now() - ahead + idle); };

  const setEnd = (answer) => {
    ahead = Date.now() - answer.now;
    expires = answer.expires;
    const left = document.querySelector("#lock-line .left");
    if (left && expires) left.dataset.until = expires;
  };

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
        active();
      } else if (response.status === 401) {
        signedOut();
      } else {
        check();
      }
    } catch {
      extended = 0; // with the next input; the drafts say that the server is away
    }
  };
  const follow = () => {
    if (!held || planned) return;
    planned = setTimeout(extend, Math.max(0, extended + every.extend - Date.now()));
  };
  form.addEventListener("input", (event) => {
    if (!event.target.name) return;
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
      if (response.ok) await apply(await response.json());
      if (response.status === 401) signedOut();
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

  let known = "";
  const apply = async (state) => {
    if (!state.held) return lose(state);
    if (!held) return;
    setEnd(state);
    tellChanged(state);
    const now = JSON.stringify([state.waiting, (state.requests ?? []).map((request) => [request.id, request.answerBy])]);
    if (now !== known && (known || state.requests?.length)) await update();
    known = now;
  };

  // update puts in the parts of the page that others change: who waits, and who asks.
  const update = async () => {
    const fresh = await load(page);
    if (!fresh?.getElementById("edit") || !held) return;
    fresh.querySelectorAll("#lock-line .left").forEach((left) => { left.dataset.until = expires; });
    for (const id of ["lock-line", "requests"]) {
      const [from, to] = [fresh.getElementById(id), document.getElementById(id)];
      if (!from || !to || to.contains(document.activeElement)) continue;
      to.replaceChildren(...from.childNodes);
      to.hidden = from.hidden;
    }
    const asked = document.querySelectorAll("#requests li").length;
    badge(asked ? `(${asked})` : "");
    document.dispatchEvent(new Event("gatehouse:changed"));
  };
  document.getElementById("requests")?.setAttribute("aria-live", "polite");

  const tellChanged = (state) => {
    if (state.version <= Number(form.dataset.base) || state.version === tellChanged.of || state.changedBy?.id === user) return;
    tellChanged.of = state.version;
    const link = document.createElement("a");
    Object.assign(link, { href: `${here}/history`, target: "_blank", rel: "noopener", textContent: "See what changed" });
    note("changed", form, { parts: [`Changed while you looked: ${state.changedBy?.email || "another user"} saved. When you save, both are brought together. `, link] });
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
      if (state.deleted) return button("Make a new process of this text", "/processes/new");
      if (!state.holder) return button("Edit again with this text", `${here}/edit`);
      if (state.holder.userId === user) return button("Go on here", `${here}/edit`, "takeOver");
      return button("Ask for it", `${here}/ask`);
    };
    if (held) {
      held = false;
      form.dataset.held = "false";
      drafts.flush();
      unnote("countdown");
      document.getElementById("lock-line")?.remove();
      document.getElementById("requests")?.remove();
      document.querySelectorAll("button[name=then]").forEach((save) => save.remove());
      const cancel = document.getElementById("cancel");
      if (cancel) cancel.textContent = "Leave, and keep the text";
      lostAt = Date.now();
      for (const wait of [400, 1500]) setTimeout(check, wait); // who did it may be known a little later
    }
    if (state.text !== lostText && Date.now() - lostAt < 3000) {
      lostText = state.text;
      badge(state.calm ? "" : "!");
      note("lost", form, {
        kind: state.calm ? "notice" : "notice failed", role: "alert",
        parts: [paragraph(state.text), paragraph("You cannot save it now. Your text is here, and kept for you until you save or discard it.")],
      });
    }
    const next = goOn();
    const shown = form.querySelector(":scope > .actions > .primary");
    if (shown?.textContent === next.textContent) return;
    shown?.remove();
    form.querySelector(":scope > .actions").prepend(next);
  };

  const countDown = () => {
    if (!held || !expires) return;
    const left = Math.ceil((expires - (Date.now() - ahead)) / 1000);
    if (left > warn) return unnote("countdown");
    if (left <= 5) drafts.flush();
    if (left <= 0) return check();
    if (document.getElementById("countdown")) return;
    const rest = document.createElement("span");
    Object.assign(rest, { className: "left", textContent: `${left} s` });
    rest.dataset.until = expires;
    note("countdown", form, { role: "alert", parts: ["You have not typed for a while. Others can edit in ", rest, ". ", button("Keep it", extend)] });
  };
  setInterval(() => {
    countDown();
    if (Date.now() - checked >= (live ? every.live : every.state)) check();
  }, 500);

  listen({
    heard: (kind, event) => {
      if (event.resource === `process:${process}` && kind !== "extended") check();
    },
    changed: (now) => {
      live = now;
      check();
    },
    hidden: () => held, // or its user would not hear that others ask for it
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) check(); });

  // An answer to who asks needs no other page, unless the lock is given away.
  const answer = async (by) => {
    try {
      await drafts.flush();
      const fields = new FormData(form, by);
      const response = await ask(by.formAction, [...fields]);
      if (!response.ok) throw new Error(response.statusText);
      await update();
      document.querySelector("#requests button, [name=title]")?.focus();
    } catch {
      check();
    }
  };

  form.addEventListener("submit", async (event) => {
    const by = event.submitter;
    if (by?.name === "answer" && !by.value.startsWith("give ")) {
      event.preventDefault();
      return answer(by);
    }
    if (leaving) return;
    event.preventDefault();
    if (drafts.away()) {
      note("unsaved", form, { kind: "notice failed", role: "alert", parts: ["Nothing was saved: the server cannot be reached. Your text is kept in this browser. Try again in a moment."] });
      return;
    }
    leaving = true;
    await drafts.send();
    setTimeout(() => form.requestSubmit(by ?? undefined)); // not within the event that is stopped
  });
  document.getElementById("discard")?.addEventListener("submit", () => {
    leaving = true;
    drafts.stop();
  });

  // The lock is given back when the page goes: a little later, as it may be back at once.
  globalThis.navigation?.addEventListener("navigate", (event) => { reloading = event.navigationType === "reload"; });
  window.addEventListener("pagehide", () => {
    if (leaving) return;
    drafts.last();
    if (!held || reloading) return;
    sessionStorage.setItem(leftKey(process), "true");
    ask(form.dataset.release, { lock, soon: "true" }, { keepalive: true, signal: undefined }).catch(() => {});
  });
  sessionStorage.removeItem(leftKey(process));
  if (held) extend();
})();

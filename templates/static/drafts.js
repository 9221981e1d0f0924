// What a user types is kept as a draft: 0.5 s after the last key, at the latest 2 s after the
// first, at most one write in 2 s. While the server cannot be reached this browser keeps a copy,
// and offers it when the page is opened again.
"use strict";
(() => {
  const pause = { key: 500, least: 2000, most: 10_000, patience: 5000 }; // in milliseconds
  const fields = ["title", "status", "description"];
  const same = (a, b) => b !== null && fields.every((name) => a[name] === b[name]);
  const sent = "gatehouse.sent"; // in the session of the tab: a copy that a form has just carried, and from where
  const { active, note, unnote, button, clock } = window.gatehouse;

  const parsed = (text) => {
    try {
      return JSON.parse(text);
    } catch {
      return null; // not one of ours
    }
  };
  // The server has got the form, if its answer is this page: it keeps the text, saved or as a
  // draft. A page that is reached in another way says nothing about the form.
  const arrived = () => {
    const [key, from] = parsed(sessionStorage.getItem(sent)) ?? [];
    const [entry] = performance.getEntriesByType("navigation");
    if (key && document.referrer === from && entry?.type !== "back_forward") localStorage.removeItem(key);
    sessionStorage.removeItem(sent);
  };
  arrived();
  // carried is for a form that goes, and of which there is a copy.
  const carried = (key) => sessionStorage.setItem(sent, JSON.stringify([key, location.href.split("#")[0]]));
  window.gatehouse.carried = carried;

  // read and base are for a form that has its text in other fields than those that it is named by,
  // and the version that the text began from.
  window.gatehouse.drafts = (form, { signedOut, forbidden, read, base }) => {
    const { user, process } = form.dataset;
    // By the time that it is sent, another user may be signed in: their draft it must not become.
    const draft = `${form.dataset.draft}?${new URLSearchParams({ user })}`;
    const key = `gatehouse.draft.${user}.${process}`;
    const values = (of) => Object.fromEntries(fields.map((name) => [name, of(name)]));
    const text = () => values(read ?? ((name) => form.elements[name].value));
    // own is the text as the form sends it: without what only changed.js has put there.
    const own = () => {
      const data = new FormData(form);
      return values(read ?? ((name) => data.get(name)));
    };
    // What the server sent, and not what is there: a user may type before this script has come.
    const sentValue = (field) => field.defaultValue ?? [...field.options].find((option) => option.defaultSelected)?.value ?? field.value;
    const shown = values(read ?? ((name) => sentValue(form.elements[name])));
    const began = () => base ?? form.dataset.base;
    const savedAt = Number(form.dataset.draftSaved);
    const ahead = Date.now() - Number(document.body.dataset.now); // this clock before the server's

    // The browser does not bring back what a page that was left had: the draft does, with its base.
    form.autocomplete = "off";

    // When the draft was stored that a save takes with it. The field stays as the page came: a browser
    // brings a changed one back after a reload.
    let known = form.elements.draft.value;
    // When its user stored another text, in another tab: this one replaces it only on request.
    let other = form.dataset.other;
    for (const sending of [form, document.getElementById("discard")]) {
      sending?.addEventListener("formdata", ({ formData }) => formData.set("draft", known));
    }

    // What the server has. A text that it did not take comes back with the answer to its form.
    const stored = new URLSearchParams(location.search).has("lock");
    let kept = stored ? shown : null;
    let since = 0; // when the first key was pressed that it does not have
    let written = 0; // when the last write began
    let failures = 0;
    let away = false; // so that a form would not arrive, either
    let due = 0;
    let attempts = []; // texts of writes without an answer, which may have arrived
    let gone = false; // the page
    let stopped = false;
    let writing = null; // a promise

    // A copy that was on its way to the server is not offered if that has a later draft. One that was
    // not to go there is apart from that of the other tab.
    const aside = `${key}.elsewhere`;
    const copy = (onItsWay = false) => {
      try {
        localStorage.setItem(other ? aside : key, JSON.stringify({ ...own(), base: began(), at: Date.now() - ahead, onItsWay }));
      } catch {
        // It is full or switched off: then there is no copy.
      }
    };
    const forget = () => localStorage.removeItem(key);

    // The text as the page came needs no draft, unless it was one. What another tab has stored since
    // is not deleted.
    const request = () => {
      const since = { "If-Unmodified-Since": known || new Date(0).toISOString() };
      return stored && !savedAt && same(text(), shown)
        ? { method: "DELETE", headers: since }
        : { method: "PUT", headers: { ...since, "Content-Type": "application/json" }, body: JSON.stringify({ ...own(), baseVersion: Number(began()) }) };
    };

    // elsewhere is for a text that would replace another one of its user's: that one stays, and this one
    // is kept in this browser, until its user decides.
    const elsewhere = (at) => {
      other = known = at;
      failures = 0;
      unnote("away");
      copy();
      const decided = () => {
        other = "";
        localStorage.removeItem(aside);
        unnote("elsewhere");
      };
      const mine = button("Keep this text", () => {
        decided();
        flush();
      });
      const theirs = button("Show the other one", async () => {
        try {
          const response = await fetch(draft, { signal: AbortSignal.timeout(pause.patience) });
          if (response.status === 404) { // it was saved or discarded there
            decided();
            return flush();
          }
          if (!response.ok) throw new Error(response.statusText);
          const stored = await response.json();
          known = stored.savedAt;
          for (const name of fields) form.elements[name].value = stored[name];
          form.dataset.base = stored.baseVersion;
          kept = text();
          decided();
        } catch {
          unreached("The other text cannot be shown");
        }
      });
      note("elsewhere", form, { role: "alert", parts: ["You typed something else at ", clock(at), ", in another tab or on another device. That is kept; what is here is kept in this browser only. If you save it, it takes the place of the other one. ", mine, " ", ...(read ? [] : [theirs])] });
    };

    const write = async () => {
      clearTimeout(due);
      due = 0;
      const now = text();
      if (stopped || other || same(now, kept)) return;
      written = Date.now();
      since = 0;
      const sending = own();
      let problem = "";
      away = false;
      try {
        const response = await fetch(draft, { ...request(), signal: AbortSignal.timeout(pause.patience) });
        const { ok, status } = response;
        let stands = ok || status === 404 ? now : null; // 404: there is none, or no process
        if (status === 412) {
          const { current } = await response.json();
          if ([sending, ...attempts].some((one) => same(current, one))) { // a write of this page, whose answer did not come
            known = current.savedAt;
            attempts = [];
            stands = values((name) => current[name]);
          } else if (stored && same(now, shown)) {
            stands = now; // nothing is typed here
          } else {
            return elsewhere(current.savedAt);
          }
        }
        if (status === 200) {
          known = (await response.json()).savedAt;
          attempts = [];
        }
        if (status >= 500) attempts.push(sending);
        if (ok) active();
        kept = stands ?? kept;
        if (status === 401) return signedOut();
        if (status === 403) forbidden();
        away = status >= 500;
        if (!stands) problem = away ? "The server cannot be reached" : "The server does not accept it";
      } catch {
        attempts.push(sending);
        away = true;
        problem = "The server cannot be reached";
      }
      failures = problem ? failures + 1 : 0;
      if (!problem) {
        forget();
        unnote("away");
        unnote("unsaved");
        return;
      }
      copy();
      if (failures === 1) {
        note("away", form, { parts: [`${problem}, since `, clock(Date.now()), ". Go on: what you type is kept in this browser, and sent as soon as that is possible."] });
      }
    };

    const plan = () => {
      if (stopped || writing || other || same(text(), kept)) return;
      const now = Date.now();
      since ||= now;
      const soonest = written + Math.min(pause.least * 2 ** failures / (failures ? 2 : 1), pause.most);
      clearTimeout(due);
      due = setTimeout(flush, Math.max(soonest, Math.min(now + pause.key, since + pause.least)) - now);
    };
    const flush = async () => {
      if (!writing) {
        writing = write().finally(() => { writing = null; });
      }
      await writing;
      plan();
    };

    // What is typed after a form was sent is not in it: the next page offers the copy.
    const changed = () => {
      if (failures || stopped || other) copy();
      if (stopped) strays();
      plan();
    };

    // took is for a field that has taken what is stored: there is nothing of its user's in it.
    const took = (name, value) => {
      shown[name] = value;
      if (kept) kept[name] = value;
    };

    // last is for a page that goes: the browser sends it even so.
    const last = () => {
      if (stopped || same(text(), kept)) return;
      copy(!failures && !other && !writing);
      gone = true;
      if (other) return;
      sessionStorage.setItem(key, began());
      fetch(draft, { ...request(), keepalive: true }).then(({ ok }) => { if (ok) forget(); }, () => {});
    };

    // send is for a form that is to go, after the write that is under way: a later one would leave a
    // draft of what is saved. It is false, and all goes on, if that finds the server away.
    const send = async () => {
      stopped = true;
      clearTimeout(due);
      await writing;
      stopped = !away;
      plan(); // flush has found it stopped
      return stopped;
    };

    // carry is for a form that goes. Until a page of the server comes the copy is all there is.
    const carry = () => {
      copy();
      carried(key);
    };

    // strays is for a page that goes in another way than the form's: the next one is no answer to it.
    const strays = () => sessionStorage.removeItem(sent);

    // resume is for a form that was sent and has not gone: its user has stopped that.
    const resume = () => {
      stopped = false;
      strays();
      plan();
    };

    // A phone suspends a page that is not seen, and may never let it go on.
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden || gone || stopped || same(text(), kept)) return;
      copy();
      flush();
    });

    // stop is for a text that is discarded, after the write that is under way.
    const stop = async () => {
      stopped = true;
      clearTimeout(due);
      await writing;
      forget();
    };

    // unreached says that something was not done, as the server is away.
    const alarm = (text) => note("unsaved", form, { kind: "notice failed", role: "alert", parts: [text] });
    const unreached = (what) => alarm(`${what}: the server cannot be reached. Your text is kept in this browser. Try again in a moment.`);

    // keep is for a page whose user is not signed in any more: the text stays in this browser alone.
    const keep = () => {
      stopped = true;
      clearTimeout(due);
      copy();
      alarm("You are signed out. Sign in again, in another tab; until then your text is kept in this browser alone.");
    };

    // bar is for a page whose user may not edit any more.
    const bar = () => {
      stopped = true;
      clearTimeout(due);
      copy();
      unnote("away");
    };

    const offer = () => {
      let ours = sessionStorage.getItem(key);
      sessionStorage.removeItem(key);
      let found = parsed(localStorage.getItem(key));
      if (!found || same(found, shown) || (found.onItsWay && !(found.at > savedAt))) {
        forget();
        ours = "";
        found = parsed(localStorage.getItem(aside));
      }
      if (!found || same(found, shown)) return localStorage.removeItem(aside);
      const fill = () => {
        for (const name of fields) form.elements[name].value = found[name];
        attempts.push(found); // the last write of the page before
        // It is older than what the page has merged since: its fields are compared with its own base.
        if (found.base) form.dataset.base = found.base;
        changed();
      };
      // The same tab is back before its last write is there, as after a reload: it goes on, and finds out
      // at once whether that has arrived.
      if (ours && ours === form.dataset.base) {
        fill();
        flush();
        return;
      }
      const done = (use) => () => {
        forget();
        localStorage.removeItem(aside);
        if (use) {
          fill();
          copy();
        }
        unnote("copy");
        form.elements.title.focus();
      };
      note("copy", form, { parts: ["This browser kept changes from ", clock(found.at), " that did not reach the server. ", button("Use them", done(true)), " ", button("Discard them", done(false))] });
    };
    if (!read) offer();
    if (other) elsewhere(other);
    plan();

    return { changed, took, flush, last, send, carry, resume, strays, stop, keep, bar, unreached, away: () => away && !same(text(), kept) };
  };
})();

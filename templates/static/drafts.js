// What a user types is kept as a draft: 0.5 s after the last key, at the latest 2 s after the
// first, at most one write in 2 s. While the server cannot be reached this browser keeps a copy,
// and offers it when the page is opened again.
"use strict";
(() => {
  const pause = { key: 500, least: 2000, most: 10_000, patience: 5000 }; // in milliseconds
  const { active, missing, note, unnote, button, clock, uncarry, texts: { fields, same } } = window.gatehouse;

  // read and base are for a form that has its text in other fields than those that it is named by,
  // and the version that the text began from.
  window.gatehouse.drafts = (form, { signedOut, refused, read, base }) => {
    const { user, process } = form.dataset;
    // By the time that it is sent, another user may be signed in: their draft it must not become.
    const draft = `${form.dataset.draft}?${new URLSearchParams({ user })}`;
    let copies = window.gatehouse.copies(`gatehouse.draft.${user}.${process}`);
    const went = `gatehouse.went.${user}.${process}`; // in the session of the tab: the copy of a page that went, its base, and what it had sent
    const values = (of) => Object.fromEntries(fields.map((name) => [name, of(name)]));
    const text = () => values(read ?? ((name) => form.elements[name].value));
    // own is the text as the form sends it: without what only changed.js has put there.
    const own = () => {
      const data = new FormData(form);
      return values(read ?? ((name) => data.get(name)));
    };
    // What the server sent, and not what is there: a user may type before this script has come.
    const sentValue = (field) => (field.type === "text" ? field.defaultValue.replace(/[\r\n]/g, "") : field.defaultValue) ?? [...field.options].find((option) => option.defaultSelected)?.value ?? field.value;
    const shown = values((name) => (read ? form.elements[`${name}.mine`].value : sentValue(form.elements[name])));
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
    let orphaned = "orphaned" in form.dataset; // the process is not there any more
    let kept = stored || orphaned ? shown : null;
    // Times of this page (performance.now), as a clock may be set back by an hour.
    let since = 0; // when the first key was pressed that it does not have
    let written = -Infinity; // when the last write began
    let failures = 0;
    let away = false; // so that a form would not arrive, either
    let due = 0;
    let attempts = []; // texts of writes since the last one that was answered well: they may have arrived
    let gone = false; // the page
    let stopped = false;
    let writing = null; // a promise

    let unkept = false; // the browser has no room for a copy
    let carried = false; // a form goes with the text
    const copy = (more) => {
      const at = copies.keep({ ...own(), from: process, base: began(), at: Date.now() - ahead, known: other ? "" : known, ...more });
      unkept = !at;
      return at;
    };
    const forget = () => {
      unkept = false;
      copies.drop();
    };
    window.addEventListener("beforeunload", (event) => {
      if (unkept && !carried && !same(text(), kept)) event.preventDefault();
    });
    const alarm = (text) => note("unsaved", form, { kind: "notice failed", role: "alert", parts: [text] });
    // spare keeps the text that is there in this browser before another one takes its place. It is
    // offered in turn. It is false, and says so, where that cannot be.
    const spare = () => {
      if (copy({ replaced: true })) {
        copies.begin();
        return true;
      }
      copies.noRoom(form);
      return false;
    };
    // setAside keeps a text that its user writes over while they decide. It goes with what they decide.
    const aside = [];
    const setAside = (text) => {
      const at = copy({ ...text, replaced: true });
      if (!at) return;
      aside.push(at);
      copies.begin();
    };
    const show = (found) => { for (const name of fields) form.elements[name].value = found[name]; };

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
      other = at;
      failures = 0;
      unnote("away");
      copy();
      const decided = () => {
        other = "";
        unnote("elsewhere");
        if (!read) form.elements.title.focus();
      };
      const mine = button("Keep this text", () => {
        known = at;
        decided();
        kept = null; // what the server has is the other one
        flush();
      });
      const theirs = button("Show the other one", async () => {
        try {
          const response = await fetch(draft, { signal: AbortSignal.timeout(pause.patience) });
          if (missing(response)) { // it was saved or discarded there
            decided();
            kept = null;
            return flush();
          }
          if (!response.ok) throw new Error(response.statusText);
          const stored = await response.json();
          if (!spare()) return;
          known = stored.savedAt;
          show(stored);
          form.dataset.base = stored.baseVersion;
          kept = text();
          decided();
          offer();
        } catch {
          unreached("The other text cannot be shown");
        }
      });
      note("elsewhere", form, { role: "alert", parts: ["You typed something else at ", clock(at), ", in another tab or on another device. That is kept; what is here is ", unkept ? "on this page only" : "kept in this browser only", `. If you save it, ${known === at ? "it takes the place of the other one" : "the other one stays your draft"}. `, mine, " ", ...(read ? [] : [theirs])] });
    };

    const write = async () => {
      clearTimeout(due);
      due = 0;
      const now = text();
      if (stopped || orphaned || other || same(now, kept)) return;
      written = performance.now();
      since = 0;
      attempts = [...attempts.slice(-9), own()];
      let problem = "";
      away = false;
      try {
        const asked = request();
        const response = await fetch(draft, { ...asked, signal: AbortSignal.timeout(pause.patience) });
        const { ok, status } = response;
        let stands = ok || (missing(response) && asked.method === "DELETE") ? now : null;
        if (status === 412) {
          const { current } = await response.json();
          if (attempts.some((one) => same(current, one))) { // a write of this page, whose answer did not come
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
        if (ok) active();
        kept = stands ?? kept;
        if (status === 401) return signedOut();
        if (status === 403) refused();
        if (missing(response) && !stands) { // there is no such process any more
          copy();
          return refused();
        }
        away = status >= 500 || (status === 404 && !stands); // of a proxy's
        if (!stands) problem = away ? "The server cannot be reached" : "The server does not accept it";
      } catch {
        away = true;
        problem = "The server cannot be reached";
      }
      failures = problem ? failures + 1 : 0;
      if (!problem) {
        if (same(text(), kept)) forget(); // else it has what was typed meanwhile
        unnote("away");
        unnote("unsaved");
        return;
      }
      copy();
      if (failures === 1) {
        const where = unkept ? "on this page only: leave it open. It is" : "kept in this browser, and";
        note("away", form, { parts: [`${problem}, since `, clock(Date.now()), `. Go on: what you type is ${where} sent as soon as that is possible.`] });
      }
    };

    const plan = () => {
      if (stopped || orphaned || writing || other || same(text(), kept)) return;
      const now = performance.now();
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
      if (failures || stopped || other || orphaned || writing) copy();
      else if (same(text(), kept)) forget();
      if (stopped) uncarry();
      plan();
    };

    // took is for a field that has taken what is stored: there is nothing of its user's in it.
    const took = (name, value) => {
      shown[name] = value;
      if (kept) kept[name] = value;
    };

    // last is for a page that goes: the browser sends it even so.
    const last = () => {
      if (gone || stopped || same(text(), kept)) return;
      const asked = request();
      const fits = new Blob([asked.body ?? ""]).size < 60_000; // a browser sends no more from a page that goes
      const at = copy({ onItsWay: fits && !failures && !other && !writing });
      gone = true;
      if (other || orphaned) return;
      fetch(draft, { ...asked, keepalive: true }).then(({ ok }) => { if (ok) forget(); }, () => {});
      sessionStorage.setItem(went, JSON.stringify([at, began(), attempts])); // last, as it throws if it is full
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

    // signOut is for a page that goes with its session: nothing is kept any more.
    const signOut = () => { gone = true; };

    // carry is for a form that goes. Until a page of the server comes the copy is all there is.
    const carry = (decided) => {
      carried = true;
      copy();
      copies.carry(decided ? aside : []);
    };

    // resume is for a form that was sent and has not gone: its user has stopped that.
    const resume = () => {
      stopped = carried = false;
      uncarry();
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
    const unreached = (what) => alarm(`${what}: the server cannot be reached. Your text is ${unkept ? "on this page only: leave it open" : "kept in this browser"}. Try again in a moment.`);

    // keep is for a page whose user is not signed in any more: the text stays in this browser alone. It
    // is false if there is no room, so that the page has to stay.
    const keep = () => {
      stopped = true;
      clearTimeout(due);
      if (!same(text(), kept)) copy();
      alarm(`You are signed out. Sign in again, in another tab; until then your text is ${unkept ? "on this page only: leave it open" : "kept in this browser alone"}.`);
      return !unkept;
    };

    // bar is for a page whose user may not edit any more.
    const bar = () => {
      stopped = true;
      clearTimeout(due);
      if (!same(text(), kept)) copy();
      unnote("away");
    };

    // orphan is for a text whose process was deleted. The server keeps the draft that it has; the form of
    // a new process offers what is in this browser alone.
    const orphan = async () => {
      if (orphaned) return;
      orphaned = true;
      clearTimeout(due);
      unnote("away");
      forget();
      const [old, fresh] = [copies, `gatehouse.new.${user}`];
      copies = window.gatehouse.copies(fresh);
      if (!same(text(), kept)) copy();
      await old.moveTo(fresh);
    };

    const fill = (found) => {
      show(found);
      attempts.push(found); // the last write of the page before
      // It is older than what the page has merged since: its fields are compared with its own base.
      if (found.base) form.dataset.base = found.base;
      copies.drop(found.key); // its room is free
      copy();
      changed();
    };
    // goOn is for the same tab that is back before its last write is there, as after a reload: it finds
    // out at once whether that has arrived.
    const goOn = () => {
      const [at, from, sent = []] = JSON.parse(sessionStorage.getItem(went)) ?? [];
      sessionStorage.removeItem(went);
      const found = copies.others().find(({ key }) => key === at);
      if (!found || useless(found) || from !== form.dataset.base || !same(text(), shown)) return;
      // Another draft was typed elsewhere since: its user decides.
      if ((savedAt || orphaned) && found.known !== known && !sent.some((one) => same(shown, one))) return;
      attempts.push(...sent);
      fill(found);
      flush();
    };
    // What the server has, or had when the page came, is of no use as a copy.
    const useless = (found) => same(found, text()) || (stored && same(found, shown));
    const offered = {
      useless,
      words: (found) => ["This browser kept ", found.replaced ? "the text from " : "a text from ", clock(found.at),
        found.replaced ? " that was here before. " : found.onItsWay ? " that may not have reached the server. " : " that did not reach the server. "],
      use(found) {
        // What is there is not stored as it is, nor was it there when the copy was typed.
        if ((stored && same(text(), shown) && (!savedAt || found.known === known)) || spare()) fill(found);
      },
    };
    const offer = () => copies.offer(form, read ? { useless } : offered); // who decides between two texts is not shown a third
    if (!kept) copy(); // the answer to a form may have its text and nothing else
    if (!read && user === document.body.dataset.user) goOn();
    offer();
    if (other) elsewhere(other);
    plan();

    return { changed, took, flush, last, send, carry, resume, stop, keep, bar, orphan, unreached, setAside, signOut, unsent: () => !same(text(), kept), away: () => away && !same(text(), kept) };
  };
})();

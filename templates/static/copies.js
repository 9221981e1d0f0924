// Texts that this browser keeps of a form as long as the server does not have them. Each page has a
// copy of its own. That of a page that is gone is offered by the next one, and stays until its user
// decides about it.
"use strict";
(() => {
  const { note, unnote, button } = window.gatehouse;
  const sent = "gatehouse.sent"; // in the session of the tab: copies that a form has just carried, and from where

  const fields = ["title", "status", "description"];
  const same = (a, b) => b !== null && fields.every((name) => a[name] === b[name]);
  // texts are what is kept: the fields of a process, and whether two of them are one.
  window.gatehouse.texts = { fields, same };

  const parsed = (text) => {
    try {
      return JSON.parse(text);
    } catch {
      return null; // not one of ours
    }
  };
  const drop = (key) => localStorage.removeItem(key);
  // put is false where this browser has no room.
  const put = (key, text) => {
    try {
      localStorage.setItem(key, JSON.stringify(text));
      return true;
    } catch {
      return false;
    }
  };
  const newKey = (of) => `${of}.${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
  // The server has got the form, if its answer is this page: it has the text, saved or as a draft, or
  // the page has it. A page that is reached in another way says nothing about the form.
  const arrived = () => {
    const [keys, from] = parsed(sessionStorage.getItem(sent)) ?? [];
    const [entry] = performance.getEntriesByType("navigation");
    if (keys && document.referrer === from && entry?.type === "navigate") [keys].flat().forEach(drop);
    sessionStorage.removeItem(sent);
  };
  arrived();

  // of is what the texts are of, and whose.
  window.gatehouse.copies = (of) => {
    const former = new Set(); // keys that this page had before
    let key = "";
    const begin = () => {
      former.add(key);
      key = newKey(of);
      // Other pages then know that this one is open. Without https a browser has no such locks.
      navigator.locks?.request(key, () => new Promise(() => {}));
    };
    begin();
    // others are all but that of this page, the newest first, each with its key.
    const others = () => Object.keys(localStorage).filter((at) => at.startsWith(`${of}.`) && at !== key)
      .map((at) => ({ ...parsed(localStorage.getItem(at)), key: at })).filter(({ at }) => at).sort((a, b) => b.at - a.at);
    // left are those of pages that are gone, and what this page had before.
    const left = async () => {
      const open = new Set((await navigator.locks?.query())?.held.map(({ name }) => name));
      return others().filter((one) => former.has(one.key) || !open.has(one.key));
    };
    // offer asks about the newest that is left, above a form. Those that are useless go. words say what
    // it is, without them nothing is asked; use puts it into the form, and drops it.
    const offer = async (form, about) => {
      if (form.elements.user.value !== document.body.dataset.user) return; // the page shows one user's text to another
      const all = await left();
      unnote("copy");
      all.filter(about.useless).forEach((one) => drop(one.key));
      const found = about.words && all.find((one) => !about.useless(one));
      if (!found) return;
      const decide = (decision) => () => {
        unnote("copy"); // at once, or what is below would move later
        decision(found);
        offer(form, about);
        form.elements.title.focus();
      };
      note("copy", form, { parts: [...about.words(found), button("Use it", decide(about.use)), " ", button("Discard it", decide((one) => drop(one.key)))] });
    };
    return {
      others,
      // keep returns the key, or "" if there is no copy.
      keep: (text) => (put(key, text) ? key : ""),
      drop: (at = key) => drop(at),
      // begin leaves the copy as it is: what is kept from now on is another one.
      begin,
      offer(form, about) {
        offer(form, about);
        setTimeout(() => { if (!document.getElementById("copy")) offer(form, about); }, 2000); // the page before may have been open still
      },
      noRoom: (form) => note("unsaved", form, { kind: "notice failed", role: "alert", parts: ["This browser has no room for both texts, so nothing was changed. Copy yours to another place, and open this page again."] }),
      // moveTo makes what is left copies of something else.
      async moveTo(other) {
        for (const { key: at, ...text } of await left()) {
          if (put(newKey(other), text)) drop(at);
        }
      },
      // carry is for a form that goes with the text of a copy, and of those with more keys.
      carry: (more = []) => sessionStorage.setItem(sent, JSON.stringify([[key, ...more], location.href.split("#")[0]])),
    };
  };
  // uncarry is for a page that goes in another way than its form, or whose form does not have all: the
  // next page does not drop the copy.
  window.gatehouse.uncarry = () => sessionStorage.removeItem(sent);
})();

// Texts that this browser keeps of a form as long as the server does not have them. Each page has a
// copy of its own. That of a page that is gone is offered by the next one, and stays until its user
// decides about it.
"use strict";
(() => {
  const sent = "gatehouse.sent"; // in the session of the tab: a copy that a form has just carried, and from where

  const parsed = (text) => {
    try {
      return JSON.parse(text);
    } catch {
      return null; // not one of ours
    }
  };
  // The server has got the form, if its answer is this page: it has the text, saved or as a draft, or
  // the page has it. A page that is reached in another way says nothing about the form.
  const arrived = () => {
    const [key, from] = parsed(sessionStorage.getItem(sent)) ?? [];
    const [entry] = performance.getEntriesByType("navigation");
    if (key && document.referrer === from && entry?.type !== "back_forward") localStorage.removeItem(key);
    sessionStorage.removeItem(sent);
  };
  arrived();

  // of is what the texts are of, and whose.
  window.gatehouse.copies = (of) => {
    const former = new Set(); // keys that this page had before
    let key = "";
    const begin = () => {
      former.add(key);
      key = `${of}.${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
      // Other pages then know that this one is open. Without https a browser has no such locks.
      navigator.locks?.request(key, () => new Promise(() => {}));
    };
    begin();
    // others are all but that of this page, the newest first, each with its key.
    const others = () => Object.keys(localStorage).filter((at) => at.startsWith(`${of}.`) && at !== key)
      .map((at) => ({ ...parsed(localStorage.getItem(at)), key: at })).filter(({ at }) => at).sort((a, b) => b.at - a.at);
    return {
      others,
      // left are those of pages that are gone, and what this page had before.
      async left() {
        const open = new Set((await navigator.locks?.query())?.held.map(({ name }) => name));
        return others().filter((one) => former.has(one.key) || !open.has(one.key));
      },
      keep(text) {
        try {
          localStorage.setItem(key, JSON.stringify(text));
          return key;
        } catch {
          return ""; // it is full or switched off: then there is no copy
        }
      },
      drop: (at = key) => localStorage.removeItem(at),
      // begin leaves the copy as it is: what is kept from now on is another one.
      begin,
      // carry is for a form that goes, and of which there is a copy.
      carry: () => sessionStorage.setItem(sent, JSON.stringify([key, location.href.split("#")[0]])),
    };
  };
  // uncarry is for a page that goes in another way than its form, or whose form does not have all: the
  // next page does not drop the copy.
  window.gatehouse.uncarry = () => sessionStorage.removeItem(sent);
})();

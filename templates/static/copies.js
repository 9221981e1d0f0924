// Texts that this browser keeps of a form as long as the server does not have them. Each page has a
// copy of its own. That of a page that is gone is offered by the next one, and stays until its user
// decides about it, or a form of that page has arrived.
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
  // The server has got the form, if its answer is this page: it keeps the text, saved or as a
  // draft. A page that is reached in another way says nothing about the form.
  const arrived = () => {
    const [key, from] = parsed(sessionStorage.getItem(sent)) ?? [];
    const [entry] = performance.getEntriesByType("navigation");
    if (key && document.referrer === from && entry?.type !== "back_forward") localStorage.removeItem(key);
    sessionStorage.removeItem(sent);
  };
  arrived();

  // of is what the texts are of, and whose.
  window.gatehouse.copies = (of) => {
    const begin = () => `${of}.${crypto.getRandomValues(new Uint32Array(2)).join("")}`;
    let key = begin();
    return {
      keep(text) {
        try {
          localStorage.setItem(key, JSON.stringify(text));
        } catch {
          // It is full or switched off: then there is no copy.
        }
        return key;
      },
      drop: (at = key) => localStorage.removeItem(at),
      // leave makes the copy that of a page that is gone, so that another text can be kept beside it.
      leave: () => { key = begin(); },
      // carry is for a form that goes, and of which there is a copy.
      carry: () => sessionStorage.setItem(sent, JSON.stringify([key, location.href.split("#")[0]])),
      // others are those of other pages, the newest first, each with its key.
      others: () => Object.keys(localStorage).filter((at) => at.startsWith(`${of}.`) && at !== key)
        .map((at) => ({ ...parsed(localStorage.getItem(at)), key: at })).filter(({ at }) => at).sort((a, b) => b.at - a.at),
    };
  };
  // strays is for a page that goes in another way than its form's: the next one is no answer to it.
  window.gatehouse.strays = () => sessionStorage.removeItem(sent);
})();

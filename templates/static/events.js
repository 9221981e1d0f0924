// What the scripts of pages share: the stream of what happens to locks, pages asked for in the
// background, and notices. It needs the session's cookie and nothing else, and keeps neither a
// lock nor a session alive.
"use strict";
window.gatehouse = (() => {
  const kinds = ["acquired", "extended", "released", "expired", "forced", "taken-over", "given", "asked", "answered"];
  const refused = 15_000; // until the next attempt after a refusal, in milliseconds
  const patience = 5000; // for an answer

  // listen calls heard(kind, event) for each event, and changed(live) when the stream begins or
  // breaks off. In between events may have been missed: ask for the state at each beginning, and
  // now and then while it is not live. A tab that is not seen has no stream, unless hidden() is
  // true: browsers allow only a few connections.
  const listen = ({ heard, changed, hidden = () => false }) => {
    let stream = null;
    let live = false;
    let again = 0;
    const report = (now) => {
      if (now !== live) changed(live = now);
    };
    const close = () => {
      clearTimeout(again);
      stream?.close();
      stream = null;
      report(false);
    };
    const open = () => {
      if (stream || (document.hidden && !hidden())) return;
      clearTimeout(again);
      const mine = stream = new EventSource("/api/v1/locks/events");
      mine.onopen = () => report(true);
      mine.onerror = () => {
        report(false); // and the browser connects again by itself, unless it was refused
        if (mine === stream && mine.readyState === EventSource.CLOSED) {
          stream = null;
          again = setTimeout(open, refused);
        }
      };
      for (const kind of kinds) mine.addEventListener(kind, (event) => heard(kind, JSON.parse(event.data)));
    };
    document.addEventListener("visibilitychange", () => (document.hidden && !hidden() ? close() : open()));
    window.addEventListener("pagehide", close);
    window.addEventListener("pageshow", (event) => { if (event.persisted) open(); });
    open();
  };

  // ask is fetch for what a script wants to know: it does not count as activity, and errors are
  // JSON. fields are the body of a POST.
  const ask = (url, fields, more) => fetch(url, {
    headers: { "HX-Request": "true" }, signal: AbortSignal.timeout(patience),
    ...(fields && { method: "POST", body: new URLSearchParams(fields) }), ...more,
  });

  // load is a page as a document; null if it cannot be had.
  const load = async (url) => {
    try {
      const response = await ask(url);
      return response.ok ? parse(await response.text()) : null;
    } catch {
      return null;
    }
  };
  const parse = (html) => new DOMParser().parseFromString(html, "text/html");

  // note shows paragraphs and buttons above an element, in place of the note of the same id. A
  // role of alert is said by screen readers at once, status when they come to it.
  const note = (id, before, { kind = "banner", role = "status", parts }) => {
    document.getElementById(id)?.remove();
    const box = document.createElement("div");
    Object.assign(box, { id, className: kind, role });
    before.before(box); // first, or what is put in it would not be said
    box.append(...parts);
    document.dispatchEvent(new Event("gatehouse:changed"));
    return box;
  };
  const unnote = (id) => document.getElementById(id)?.remove();

  const button = (text, press) => {
    const made = document.createElement("button");
    Object.assign(made, { type: "button", className: "quiet", textContent: text, onclick: press });
    return made;
  };
  const paragraph = (...parts) => {
    const made = document.createElement("p");
    made.append(...parts);
    return made;
  };
  const clock = (at) => {
    const made = document.createElement("time");
    made.dateTime = new Date(at).toISOString(); // app.js writes it as the reader does
    made.textContent = new Date(at).toLocaleTimeString(undefined, { timeStyle: "short" });
    return made;
  };

  // badge puts a sign before the title of the tab; "" takes it away.
  const title = document.title;
  const badge = (sign) => { document.title = sign ? `${sign} ${title}` : title; };

  // left names the note of a tab that it has left an edit page, and may come back.
  const left = (process) => `gatehouse.left.${process}`;

  return { left, listen, ask, load, parse, note, unnote, button, paragraph, clock, badge };
})();

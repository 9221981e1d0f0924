// What the scripts of pages share: the stream of what happens to locks, pages asked for in the
// background, and notices. It needs the session's cookie and nothing else, and keeps neither a
// lock nor a session alive.
"use strict";
window.gatehouse = (() => {
  const patience = 5000; // for an answer, in milliseconds
  const beat = 2000; // the worker answers within that, or it is gone
  const least = 1500; // between two looks while there is no stream
  const { user } = document.body.dataset;
  const { worker: script } = document.currentScript.dataset; // stream.js, which has the stream of all tabs
  const shared = "SharedWorker" in window;

  // listen calls heard(kind, event) for each event, and look() when events may have been missed:
  // when the stream begins or breaks off and, while there is none, in turn with the other tabs. A
  // tab that is not seen does not listen, unless hidden() is true. Timers of such a tab run late,
  // messages do not.
  const listen = ({ heard, look, hidden = () => false }) => {
    let worker = null;
    let live = false;
    let looked = 0;
    let silent = false;
    let gone = false;
    const port = () => worker.port ?? worker;
    const listens = () => !gone && (!document.hidden || (shared && hidden()));
    const say = () => port().postMessage(listens());

    const setLive = (now) => document.documentElement.classList.toggle("live", live = now);

    const answer = ({ data }) => {
      silent = false;
      if (data.kind) return heard(data.kind, data.event);
      if (data.turn) say();
      if (data.turn ? Date.now() - looked < least : data.live === live) return;
      if (!data.turn) setLive(data.live);
      if (!listens()) return;
      looked = Date.now();
      look();
    };
    const connect = () => {
      if (worker) {
        port().onmessage = null;
        port().postMessage(false);
        worker.terminate?.();
      }
      setLive(false);
      silent = false;
      worker = shared ? new SharedWorker(script, user) : new Worker(script, { name: user });
      port().onmessage = answer;
      say();
    };
    // A tab that crashes takes the worker along if it is the one in whose process that runs. The
    // first tab to miss it begins another, and tells those that are hidden: their timers may run
    // once a minute.
    const missed = new BroadcastChannel("gatehouse.missed");
    missed.onmessage = connect;
    setInterval(() => {
      if (silent) {
        missed.postMessage("");
        return connect();
      }
      silent = true;
      say();
    }, beat);
    document.addEventListener("visibilitychange", say);
    window.addEventListener("pagehide", () => {
      gone = true;
      say();
      port().close?.(); // a page that gets a message is not kept for "Back"
    });
    connect();
  };

  // ask is fetch for what a script wants to know: it does not count as activity, and errors are
  // JSON. fields are the body of a POST.
  const ask = (url, fields, more) => fetch(url, {
    headers: { "HX-Request": "true" }, signal: AbortSignal.timeout(patience),
    ...(fields && { method: "POST", body: new URLSearchParams(fields) }), ...more,
  });

  // missing reports whether gatehouse says that something is not there. A proxy before it, that does not
  // find gatehouse, answers 404 in its own way.
  const missing = (response) => response.status === 404 && Boolean(response.headers.get("Content-Type")?.startsWith("application/problem+json"));

  // load is a page as a document; null if it cannot be had. If it is for another user, or for none,
  // this page is nobody's any more: ended() says what becomes of it. So does gone() if there is no
  // such page any more.
  const load = async (url, ended = () => location.reload(), gone = () => {}) => {
    try {
      const response = await ask(url);
      if (missing(response)) gone();
      if (!response.ok && response.status !== 401) return null;
      const page = parse(await response.text());
      if (page.body.dataset.user === user) {
        extendTo(Number(page.body.dataset.ends ?? 0)); // its user is active in another tab
        return page;
      }
      ended();
      return null;
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
  // banner is what a page of the server says of all that it shows.
  const banner = (page) => page.querySelector("main .banner:not([id])");
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

  // The session lives as long as there is input that the server hears of: active says so, as app.js
  // clears the page when it has ended.
  const until = document.body.dataset;
  const [idle, ahead] = [Number(until.ends) - Number(until.now), Date.now() - Number(until.now)];
  const extendTo = (ends) => { until.ends = Math.max(Number(until.ends), ends); };
  const active = () => extendTo(Date.now() - ahead + idle);

  // left names the note of a tab that it has left an edit page, and may come back.
  const left = (process) => `gatehouse.left.${process}`;

  // give notes that the tab goes on to the form of a lock that was given; wasGiven asks for that, once.
  const given = "gatehouse.given";
  const give = (lock) => sessionStorage.setItem(given, lock);
  const wasGiven = (lock) => {
    const was = sessionStorage.getItem(given) === lock;
    sessionStorage.removeItem(given);
    return was;
  };

  // bdi is a text of a user within a sentence, which may go from right to left.
  const bdi = (text) => Object.assign(document.createElement("bdi"), { textContent: text });

  return { left, give, wasGiven, bdi, listen, active, ask, missing, load, parse, note, unnote, banner, button, paragraph, clock, badge };
})();

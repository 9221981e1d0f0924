// The event stream of a user's tabs, all of them in one: a browser allows six connections to a
// server over HTTP/1.1, and streams in six tabs would leave none to save with. This runs in a
// shared worker. It belongs to no tab, so none that is closed or frozen silences the others, and
// none has to be elected; its timers are not slowed down as those of hidden tabs are; and it works
// over plain HTTP, where browsers have no navigator.locks. Where there are no shared workers, as in
// Chrome on phones, each tab that is seen runs this in a worker of its own.
"use strict";
(() => {
  const kinds = ["acquired", "extended", "released", "expired", "forced", "taken-over", "given", "asked", "answered"];
  const refused = 15_000; // until the next attempt after a refusal, in milliseconds
  // Without a stream the tabs look for themselves, each when it has its turn: together 150 times a
  // minute, half of what the API allows a user by default, however many they are.
  const turn = 400;

  const tabs = new Set(); // those that listen; first the one whose turn is next
  let stream = null;
  let live = false;
  let again = 0; // the timer of that attempt; not 0 until then, whoever asks for the stream

  const tell = (message) => tabs.forEach((tab) => tab.postMessage(message));
  const report = (now) => {
    if (now !== live) tell({ live: live = now });
  };
  const close = () => {
    stream?.close();
    stream = null;
    live = false;
  };
  const open = () => {
    if (stream || again) return;
    // The worker is called as its user. Once another user has signed in, the server refuses: their
    // events are none of the business of the pages that this one left open.
    stream = new EventSource(`/api/v1/locks/events?${new URLSearchParams({ user: self.name })}`);
    stream.onopen = () => report(true);
    stream.onerror = () => {
      report(false); // and the browser connects again by itself, unless it was refused
      if (stream.readyState !== EventSource.CLOSED) return;
      stream = null;
      again = setTimeout(() => {
        again = 0;
        if (tabs.size) open();
      }, refused);
    };
    for (const kind of kinds) stream.addEventListener(kind, (event) => tell({ kind, event: JSON.parse(event.data) }));
  };

  // A tab that has its turn is left out until it answers: one that is gone takes no more turns.
  setInterval(() => {
    const [next] = live ? [] : tabs;
    if (!next) return;
    tabs.delete(next);
    next.postMessage({ turn: true });
  }, turn);

  // A tab says whether it listens: at first, when it is hidden or seen again, when it has had its
  // turn, and now and then, to hear in turn that this worker is still there.
  const join = (tab) => {
    tab.onmessage = ({ data: listens }) => {
      if (listens) {
        tabs.add(tab); // at the end, or where it is
        open();
      } else {
        tabs.delete(tab);
        if (!tabs.size) close();
      }
      tab.postMessage({ live: listens && live });
    };
  };
  if ("onconnect" in self) {
    self.onconnect = ({ ports: [tab] }) => join(tab);
  } else {
    join(self);
  }
})();

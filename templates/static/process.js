// The page on which a process is read: who is editing it stands there as it is now, and so does
// that the process was changed. On request it says when the lock is free.
"use strict";
(() => {
  const reader = document.querySelector(".reader");
  if (!reader) return;
  const { listen, load, note, unnote, banner, button, badge, left, give, copies } = window.gatehouse;
  const { process } = reader.dataset;
  const panel = () => document.getElementById("lock");
  const every = 20_000; // in milliseconds, as a message may get lost
  const watched = `gatehouse.watched.${process}`; // in the session of the tab

  let last = Date.now();
  let busy = false;
  let ended = false; // the process was deleted, or this page goes on to the form
  let again = false;
  let version = reader.dataset.version;

  // "Back" to an edit page that was left leads here once the lock was given back, and goes on there.
  // "Back" from it to this page does not.
  const [entry] = performance.getEntriesByType("navigation");
  if (sessionStorage.getItem(left(process)) && entry?.type === "back_forward" && entry.redirectCount > 0) {
    const goOn = document.querySelector("#draft form[action$='/edit']") ?? document.querySelector("#lock form:has([name=reason])");
    goOn?.requestSubmit();
  }
  sessionStorage.removeItem(left(process));

  // asked is the reader's own request for the lock: once it is given, the page goes on to the form.
  const asked = () => document.querySelector("#lock [name=request]")?.value;
  const address = () => {
    const request = asked() ?? new URLSearchParams(location.search).get("request");
    return `/processes/${process}${request ? `?${new URLSearchParams({ request })}` : ""}`;
  };

  const watching = () => sessionStorage.getItem(watched);
  const told = Object.assign(document.createElement("p"), { className: "visually-hidden", role: "status" });
  panel().before(told);
  const watch = (how) => {
    if (how) {
      sessionStorage.setItem(watched, how);
    } else {
      sessionStorage.removeItem(watched);
    }
    offer();
  };

  // offer adds what only a script can do: to say when the lock is free. The sound is off at first.
  const offer = () => {
    panel().querySelector(".tell")?.remove();
    const editing = document.getElementById("editing")?.textContent.trim();
    if (!editing || editing.startsWith("You ")) return;
    const row = document.createElement("p");
    row.className = "tell";
    const how = watching();
    const press = (text, next) => button(text, () => {
      watch(next);
      const now = panel().querySelector(".tell");
      now?.querySelector("button")?.focus();
      told.textContent = next ? now?.firstChild.textContent ?? "" : "You will not be told.";
    });
    const sound = how === "loud" ? press("Without a sound", "quiet") : press("With a sound", "loud");
    if (asked()) {
      row.append("When it is yours, this tab shows the form, and its title says so. ", sound);
    } else if (how) {
      row.append("You will be told here, and in the title of this tab, when it is free. ", sound, " ", press("Do not tell me", ""));
    } else {
      row.append(press("Tell me when it is free", "quiet"));
    }
    panel().insertBefore(row, panel().querySelector(".force"));
  };
  document.addEventListener("submit", ({ target }) => {
    if (target.action.endsWith("/edit")) sessionStorage.removeItem(watched); // or an own lock would be told of
    if (target.action.endsWith("/draft/discard")) { // what was on its way just before has become the draft
      const of = `${document.body.dataset.user}.${process}`;
      const ours = copies(`gatehouse.draft.${of}`);
      const savedAt = Date.parse(target.elements.draft.value);
      ours.others().filter(({ onItsWay, at }) => onItsWay && at <= savedAt && at > savedAt - 10_000).forEach(({ key }) => ours.drop(key));
      sessionStorage.removeItem(`gatehouse.went.${of}`);
    }
  });

  const beep = () => {
    const audio = new AudioContext();
    const tone = new OscillatorNode(audio, { frequency: 660 });
    tone.connect(new GainNode(audio, { gain: 0.1 })).connect(audio.destination);
    tone.start();
    tone.stop(audio.currentTime + 0.2);
  };

  const tellFree = () => {
    const how = watching();
    const taken = document.getElementById("editing");
    if (taken) { // by another one, since it was free
      unnote("free");
      badge("");
    }
    if (!how || taken || banner(document)) return; // where it is not sure, it may not be free
    watch("");
    badge("Free:");
    note("free", panel(), { kind: "notice", parts: [document.querySelector("form[action$='/edit']") ? "It is free now: you can edit." : "It is free now."] });
    if (how === "loud") beep();
  };
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) badge("");
  });

  const tellChanged = (fresh) => {
    const now = fresh.querySelector(".reader")?.dataset.version;
    if (!now || now === version) return;
    version = now;
    const own = fresh.querySelector(".reader").dataset.changedBy === document.body.dataset.user;
    const words = fresh.getElementById("last")?.textContent.replace(/\s+/g, " ").trim();
    const parts = [["h1", "the title"], [".tag", "the status"], [".text", "the description"]]
      .filter(([css]) => fresh.querySelector(`.reader ${css}`)?.textContent !== reader.querySelector(css)?.textContent).map(([, name]) => name);
    note("changed", reader, { parts: [own ? "You saved it in another tab, or on another device. " : `Changed while you looked: ${parts.join(" and ") || "saved again"} (${words}). `, button("Show it", () => location.assign(`/processes/${process}`))] });
  };

  const tellDeleted = () => {
    ended = true;
    watch("");
    badge("");
    unnote("free"); // its lock ended first
    panel().hidden = true;
    note("deleted", panel(), { kind: "notice failed", role: "alert", parts: ["The process was deleted. What you see here is what it was."] });
  };

  // goTo goes on to the form of a lock that was given.
  const goTo = (lock) => {
    ended = true;
    const loud = watching() === "loud";
    sessionStorage.removeItem(watched);
    give(lock);
    if (loud) beep();
    setTimeout(() => location.assign(`/processes/${process}/edit?${new URLSearchParams({ lock })}`), loud ? 300 : 0); // or nobody would hear it
  };

  const refresh = async () => {
    if (ended) return;
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    last = Date.now();
    const fresh = await load(address(), undefined, tellDeleted);
    busy = false;
    const lock = fresh?.querySelector("#edit, #conflict")?.dataset.lock; // with a draft to decide about, it is the latter
    if (lock) return goTo(lock);
    const now = fresh?.getElementById("lock");
    if (now) {
      tellChanged(fresh);
      putBanner(banner(fresh));
      putDraft(fresh.getElementById("draft"));
      putDrafts(fresh.getElementById("drafts"));
      put(now);
    }
    if (again) {
      again = false;
      refresh();
    }
  };

  // gist is what a panel says, apart from how its times are written.
  const gist = (of) => {
    const made = of.cloneNode(true);
    made.querySelectorAll(".tell, .technical").forEach((part) => part.remove());
    made.querySelectorAll("details").forEach((part) => part.removeAttribute("open"));
    made.querySelectorAll("time").forEach((time) => time.replaceWith(time.dateTime));
    return made.innerHTML;
  };

  // put shows the panel as it is now; what is typed into it stays, and so does the focus if what has
  // it is still there. What is being pressed is not replaced until later, and then by the newest.
  let later = 0;
  const put = (now) => {
    clearTimeout(later);
    if (panel().matches(":active")) {
      later = setTimeout(put, 200, now);
      return;
    }
    const typed = panel().querySelector("input[type=text]");
    const same = gist(now) === gist(panel());
    const [from, to] = [now.querySelector("#editing"), panel().querySelector("#editing")];
    if (!same && typed && (typed.value || typed === document.activeElement) && from && to) {
      to.replaceChildren(...from.childNodes);
    } else if (!same) {
      const focused = panel().contains(document.activeElement) && document.activeElement.textContent;
      panel().replaceChildren(...now.childNodes);
      const field = panel().querySelector("input[type=text]");
      if (typed?.value && field) field.value = typed.value; // the word is another question's now, but not lost
      offer();
      const controls = [...panel().querySelectorAll("input[type=text], button, a")];
      if (focused !== false) (controls.find(({ textContent }) => textContent === focused) ?? controls[0])?.focus();
    }
    tellFree();
    document.dispatchEvent(new Event("gatehouse:changed"));
  };

  const putBanner = (now) => {
    const old = banner(document);
    if (old?.textContent === now?.textContent) return;
    old?.remove();
    if (now) panel().before(now);
  };

  // putDraft shows the reader's own draft as it is now: the way on to the form is there, if not in
  // the panel. What is being typed or pressed there stays.
  const putDraft = (now) => {
    const old = document.getElementById("draft");
    if (old?.matches(":focus-within, :active") || old?.querySelector("input[type=text]")?.value) return;
    if (old && now && gist(old) === gist(now)) return;
    const open = old?.querySelector("details")?.open;
    old?.remove();
    if (now) panel().after(now);
    if (now && open) now.querySelector("details")?.setAttribute("open", "");
  };

  // putDrafts says whose changes are not saved now.
  const putDrafts = (now) => {
    const old = document.getElementById("drafts");
    if (gist(old) !== gist(now)) old.replaceWith(now);
  };

  setInterval(() => {
    if ((!document.hidden || watching() || asked()) && Date.now() - last >= every) refresh();
  }, 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  listen({
    heard: (kind, event) => {
      if (event.resource === `process:${process}`) refresh();
    },
    look: refresh,
    hidden: () => Boolean(watching() || asked()), // what is given has to be taken soon
  });
  offer();
})();

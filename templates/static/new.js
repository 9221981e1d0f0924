// The form of a new process. It has no draft: this browser keeps what is typed until it was created.
"use strict";
(() => {
  const form = document.querySelector("form[action='/processes/new']");
  const { note, unnote, button, clock, carried } = window.gatehouse;
  const key = `gatehouse.new.${form.elements.user.value}`;
  const fields = ["title", "status", "description"];
  const text = () => Object.fromEntries(fields.map((name) => [name, form.elements[name].value]));
  const same = (a, b) => fields.every((name) => a[name] === b[name]);

  form.autocomplete = "off"; // the browser would bring back a part of it
  // What was typed before is offered, and apart from what is typed now until it is decided about.
  const before = `${key}.before`;
  const keep = () => {
    try {
      localStorage.setItem(key, JSON.stringify({ ...text(), at: Date.now() }));
    } catch {
      // It is full or switched off: then there is no copy.
    }
  };
  const decide = (found) => {
    localStorage.removeItem(before);
    if (found) {
      for (const name of fields) form.elements[name].value = found[name];
      keep();
    }
    unnote("copy");
    form.elements.title.focus();
  };
  if (form.elements.title.defaultValue || form.elements.description.defaultValue) {
    keep(); // what the server did not create
  } else {
    if (localStorage.getItem(key)) localStorage.setItem(before, localStorage.getItem(key));
    localStorage.removeItem(key);
    const found = JSON.parse(localStorage.getItem(before));
    if (found && !same(found, text())) {
      note("copy", form, { parts: ["This browser kept a text from ", clock(found.at), " that was not created. ", button("Use it", () => decide(found)), " ", button("Discard it", () => decide())] });
    }
  }
  form.addEventListener("input", keep);
  form.addEventListener("submit", () => carried(key));
})();

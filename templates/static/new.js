// The form of a new process. It has no draft: this browser keeps what is typed until it was created.
"use strict";
(() => {
  const form = document.querySelector("form[action='/processes/new']");
  const { note, unnote, button, clock, carried } = window.gatehouse;
  const key = `gatehouse.new.${form.elements.user.value}`;
  const fields = ["title", "status", "description"];
  const text = () => Object.fromEntries(fields.map((name) => [name, form.elements[name].value]));
  const same = (a, b) => fields.every((name) => a[name] === b[name]);

  const found = JSON.parse(localStorage.getItem(key));
  let offered = false; // until it is decided about, what is typed does not replace it
  const keep = () => {
    if (offered) return;
    try {
      localStorage.setItem(key, JSON.stringify({ ...text(), at: Date.now() }));
    } catch {
      // It is full or switched off: then there is no copy.
    }
  };
  const decide = (use) => () => {
    if (use) {
      for (const name of fields) form.elements[name].value = found[name];
    }
    offered = false;
    keep();
    unnote("copy");
    form.elements.title.focus();
  };
  if (form.elements.title.value || form.elements.description.value) {
    keep(); // what the server did not create
  } else if (found && !same(found, text())) {
    offered = true;
    note("copy", form, { parts: ["This browser kept a text from ", clock(found.at), " that was not created. ", button("Use it", decide(true)), " ", button("Discard it", decide(false))] });
  }
  form.addEventListener("input", keep);
  form.addEventListener("submit", () => carried(key));
})();

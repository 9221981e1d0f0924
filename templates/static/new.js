// The form of a new process. It has no draft: this browser keeps what is typed until it was created.
"use strict";
(() => {
  const form = document.querySelector("form[action='/processes/new']");
  const { note, unnote, button, clock, uncarry } = window.gatehouse;
  const copies = window.gatehouse.copies(`gatehouse.new.${form.elements.user.value}`);
  const fields = ["title", "status", "description"];
  const text = () => Object.fromEntries(fields.map((name) => [name, form.elements[name].value]));
  const same = (a, b) => fields.every((name) => a[name] === b[name]);
  const keep = () => copies.keep({ ...text(), at: Date.now() });

  form.autocomplete = "off"; // the browser would bring back a part of it
  const offer = async () => {
    const all = await copies.left();
    unnote("copy");
    all.filter((one) => same(one, text())).forEach(({ key }) => copies.drop(key));
    const found = all.find((one) => !same(one, text()));
    if (!found) return;
    const decide = (use) => () => {
      if (use) {
        if (text().title || text().description) { // it is offered in turn
          keep();
          copies.begin();
        }
        for (const name of fields) form.elements[name].value = found[name];
        keep();
      }
      copies.drop(found.key);
      offer();
      form.elements.title.focus();
    };
    note("copy", form, { parts: ["This browser kept a text from ", clock(found.at), " that was not created. ", button("Use it", decide(true)), " ", button("Discard it", decide(false))] });
  };
  if (form.elements.title.defaultValue || form.elements.description.defaultValue) keep(); // what the server did not create
  offer();
  setTimeout(() => { if (!document.getElementById("copy")) offer(); }, 2000); // the page before may have been open still
  form.addEventListener("input", () => {
    uncarry(); // the form that was sent does not have it
    keep();
  });
  // After app.js, which stops a second press.
  document.addEventListener("submit", (event) => { if (event.target === form && !event.defaultPrevented) copies.carry(); });
})();

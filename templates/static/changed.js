// What other users save while a text is edited, as without Redis two can. A field that its user
// left as it was takes their text at once, and the page says so; what the user changed stays. Where
// both changed a field, it is decided when the text is saved, as without this script.
"use strict";
window.gatehouse.changed = (form, drafts) => {
  const { ask, missing, note, texts: { fields } } = window.gatehouse;
  const { process, user } = form.dataset;
  let base = form.dataset.base; // what the next two are about
  let seen = 0; // the version that was told
  let has = {}; // of each field that its user left as it was: the text that it has taken, and the base's

  // begins starts anew when the text begins from another version, as a copy that is used does.
  const begins = () => {
    if (base === form.dataset.base) return;
    [base, seen, has] = [form.dataset.base, 0, {}];
  };

  // A form goes with the base that its text has now. The field stays as the page came: a browser
  // brings a changed one back after a reload. What was only taken goes as it was in the base, or it
  // would count as the user's own, and undo what another has saved since.
  form.addEventListener("formdata", ({ formData }) => {
    begins();
    formData.set("base", base);
    for (const [name, { now, was }] of Object.entries(has)) {
      if (form.elements[name].value === now) formData.set(name, was);
    }
  });

  // get is null for what there is not, or not any more.
  const get = async (path) => {
    const response = await ask(`/api/v1/processes/${process}${path}`);
    if (missing(response)) return null;
    if (!response.ok) throw new Error(`${response.status}`);
    return response.json();
  };
  // asField is a stored text as the form has it.
  const asField = (name, text) => (name === "title" ? text.replace(/[\r\n]/g, "") : text.replace(/\r\n?/g, "\n"));

  // take puts a text into a field, and leaves the cursor where it is.
  const take = (field, text) => {
    const { selectionStart, selectionEnd } = field;
    field.value = text;
    if (field === document.activeElement) field.setSelectionRange?.(selectionStart, selectionEnd);
    drafts.took(field.name, text);
  };

  // merge brings in what changed from the base to a version.
  const merge = (from, to) => {
    const [taken, both] = [[], []];
    for (const name of fields) {
      const [was, now] = [from, to].map((of) => asField(name, of[name]));
      const field = form.elements[name];
      if (field.value === now) continue;
      if (field.value === was || field.value === has[name]?.now) {
        take(field, now);
        has[name] = { now, was };
        taken.push(name);
      } else if (now !== was) {
        both.push(name);
      }
    }
    // From now on the text begins from that version, unless something of it is to be decided.
    if (!both.length) form.dataset.base = to.version;
    return { taken, both };
  };

  // other is the user, but for the reader, who saved last since a version, and which fields;
  // undefined if it was the reader alone, in another tab.
  const other = async (to, since) => {
    if (to.updatedBy.id !== user) return { by: to.updatedBy, theirs: fields };
    const history = await get("/history?limit=20");
    const entry = history?.items.find(({ version, actor }) => version > since && actor.id !== user);
    return entry && { by: entry.actor, theirs: entry.changes.map(({ field }) => field) };
  };

  const tell = ({ by, theirs }, { taken, both }) => {
    const says = [];
    const shown = taken.filter((name) => theirs.includes(name));
    if (shown.length) says.push(`Their ${shown.join(" and ")} ${shown.length > 1 ? "are" : "is"} in the form now; what you changed stays.`);
    if (both.length) says.push(`You both changed the ${both.join(" and the ")}: when you save, you are shown both texts.`);
    if (says.length) say(by, says.join(" "));
  };
  const say = (by, text) => {
    const link = document.createElement("a");
    Object.assign(link, { href: `/processes/${process}/history`, target: "_blank", rel: "noopener", textContent: "See what changed" });
    note("changed", form, { parts: [`Changed while you looked: ${by.email || "another user"} saved. ${text} `, link] });
  };

  // look is called with each state of the page, one at a time. A failure is tried again with the
  // next one.
  return async ({ version }) => {
    begins();
    if (version <= Number(base) || version <= seen) return;
    const began = base;
    try {
      const [from, to] = await Promise.all([get(`/versions/${began}`), get("")]);
      const saved = to && await other(to, Math.max(seen, Number(began)));
      if (!to || form.dataset.held !== "true" || form.dataset.base !== began) return;
      seen = to.version;
      const merged = from && merge(from, to);
      if (!saved) return;
      if (merged) tell(saved, merged);
      else say(saved.by, "When you save, the two are combined."); // the base is not kept any more
    } catch {
      // The server is away.
    }
  };
};

// What other users save while a text is edited, as without Redis two can. A field that its user
// left as it was takes their text at once, and the page says so; what the user changed stays. Where
// both changed a field, it is decided when the text is saved, as without this script.
"use strict";
window.gatehouse.changed = (form, drafts) => {
  const { ask, note } = window.gatehouse;
  const { process, user } = form.dataset;
  const words = { title: "title", status: "status", description: "description" };
  let seen = 0; // the version that was told

  const get = async (path) => {
    const response = await ask(`/api/v1/processes/${process}${path}`);
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

  // merge brings in what changed from one version to another.
  const merge = (from, to) => {
    const [taken, both] = [[], []];
    for (const name of Object.keys(words)) {
      const [was, now] = [from, to].map((of) => asField(name, of[name]));
      const field = form.elements[name];
      if (now === was || field.value === now) continue;
      if (field.value === was) {
        take(field, now);
        taken.push(words[name]);
      } else {
        both.push(words[name]);
      }
    }
    // From now on the text begins from that version, unless something of it is to be decided.
    if (!both.length) form.dataset.base = form.elements.base.value = to.version;
    return { taken, both };
  };

  const tell = (who, { taken, both }) => {
    const says = [];
    if (taken.length) says.push(`Their ${taken.join(" and ")} ${taken.length > 1 ? "are" : "is"} in the form now; what you changed stays.`);
    if (both.length) says.push(`You both changed the ${both.join(" and the ")}: when you save, you are shown both texts.`);
    if (!says.length) return;
    const link = document.createElement("a");
    Object.assign(link, { href: `/processes/${process}/history`, target: "_blank", rel: "noopener", textContent: "See what changed" });
    note("changed", form, { parts: [`Changed while you looked: ${who} saved. ${says.join(" ")} `, link] });
  };

  // look is called with each state of the page. A failure is tried again with the next one.
  return async ({ version, changedBy }) => {
    if (version <= Number(form.dataset.base) || version <= seen || changedBy?.id === user) return;
    const before = seen;
    seen = version;
    try {
      const [from, to] = await Promise.all([get(`/versions/${form.dataset.base}`), get("")]);
      if (form.dataset.held !== "true") return;
      seen = Math.max(seen, to.version);
      tell(changedBy?.email || "another user", merge(from, to));
    } catch {
      seen = before;
    }
  };
};

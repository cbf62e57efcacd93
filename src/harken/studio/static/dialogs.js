// The two questions before an item is passed over.

import { all, find } from "./dom.js";

/** Opens the dialog and resolves to {reason | category, note, …} as its API operation wants it, or null when closed.
 *  Digits choose, Enter sends. */
export function ask(id) {
  const dialog = find(`#${id}`);
  const form = find("form", dialog);
  form.reset();
  const radios = all('input[type="radio"]', form);
  const digits = (event) => {
    const at = Number(event.key) - 1;
    if (event.target.matches("textarea, input[type=text]") || !radios[at]) return;
    radios[at].checked = true;
    radios[at].focus();
  };
  dialog.showModal();
  radios[0].focus();
  dialog.addEventListener("keydown", digits);
  return new Promise((resolve) => {
    const sent = (event) => {
      event.preventDefault();
      const data = new FormData(form);
      const said = Object.fromEntries([...data].filter(([k]) => k !== "hide"));
      dialog.returnValue = "sent";
      dialog.close();
      resolve(form.elements.hide ? { ...said, hide: data.has("hide") } : said);
    };
    form.addEventListener("submit", sent, { once: true });
    dialog.addEventListener(
      "close",
      () => {
        dialog.removeEventListener("keydown", digits);
        form.removeEventListener("submit", sent);
        resolve(null); // does nothing when it was sent
      },
      { once: true },
    );
  });
}

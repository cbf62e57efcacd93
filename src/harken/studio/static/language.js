// The interface's words in the reader's language. The English sentence is the key; what is not translated stays English.

const place = document.getElementById("words");
const words = place ? JSON.parse(place.textContent) : {};

export const language = document.documentElement.lang || "en";

/** t("{n} of {k} rated", {n: 1, k: 4}): the translation with its values put in. */
export const t = (english, values = {}) => (words[english] ?? english).replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);

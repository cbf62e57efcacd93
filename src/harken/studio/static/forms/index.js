// A task's kind → its form, the default export of KIND.js in this folder; the page's data names the kinds.
// A form is {root, keys(), status, action, problem(), answer(), draft(), restore(draft), focus(), toggleSource()}, and
// optionally advance(), differ(); it calls onstep, onproblem(words) and onsubmit where it has them. Its class has
// summary(answer).

import { pageData } from "../api.js";

const load = async (kind) => [kind, (await import(`./${kind}.js`)).default];

export const FORMS = Object.fromEntries(await Promise.all(pageData().kinds.map(load)));

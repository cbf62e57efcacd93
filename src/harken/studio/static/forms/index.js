// A task's kind → its form. A form is {root, keys(), status, action, problem(), answer(), draft(), restore(draft), focus(),
// toggleSource()}, and optionally advance(), differ(); it calls onstep, onproblem(words) and onsubmit where it has them.

import { Compare } from "./compare.js";
import { RateAndRank } from "./rate_and_rank.js";
import { Demonstrate, Edit, WritePrompt } from "./write.js";

export const FORMS = {
  demonstrate: Demonstrate,
  rate_and_rank: RateAndRank,
  compare: Compare,
  edit: Edit,
  write_prompt: WritePrompt,
};

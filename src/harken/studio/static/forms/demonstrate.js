// Write the answer that a good assistant would give.

import { el } from "../dom.js";
import { render } from "../text.js";
import { frame, textField } from "./parts.js";
import { Writing } from "./writing.js";
import { t } from "../language.js";

export default class Demonstrate extends Writing {
  constructor(task, form, changed) {
    super(task, form, changed);
    this.field = textField(t("The ideal answer"), {
      rows: 14,
      max: this.max,
      changed: this.changed,
      id: "text",
      hint: t("Markdown works. Skip the prompt if you cannot tell what it asks for."),
    });
    this.view = el("div", { class: "prose preview" });
    this.preview = el("details", { class: "about", ontoggle: () => this.paint() }, el("summary", {}, t("Preview")), this.view);
    this.root = frame(task, this.about, this.notes, [el("div", { class: "card writing" }, this.field.root, this.preview)]);
  }

  paint() {
    if (this.preview?.open) this.view.replaceChildren(render(this.text));
  }
}

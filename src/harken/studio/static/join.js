// The invitation stands behind the # of the address, so that it is in no server's log.

import { call } from "./api.js";
import { find } from "./dom.js";
import { t } from "./language.js";
import { render } from "./text.js";

const form = find("#join");
const invitation = location.hash.slice(1);
try {
  if (!invitation) throw new Error(t("This link is not whole. Copy all of it, and open it again."));
  const found = await call("POST", "/api/invitations/look", { invitation });
  find("#invited").textContent = found.projects.length
    ? t("As a {role}, for {projects}.", { role: t(found.role), projects: found.projects.join(", ") })
    : t("As a {role}.", { role: t(found.role) });
  find("[name=invitation]").value = invitation;
  find("#consent").replaceChildren(render(found.consent_text, { flow: true }));
  form.hidden = false;
} catch (error) {
  find("#invited").textContent = [error.message, error.hint].filter(Boolean).join(" ");
}

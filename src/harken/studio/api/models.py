"""The API's operation for which model won. Labelers never see it: they judge blind."""

from __future__ import annotations

from harken.core.errors import UserError
from harken.studio.api.declare import operation
from harken.studio.work.leases import find_project
from harken.studio.work.winners import ranked, votes_of_project
from harken.web.errors import ApiError
from harken.web.json_schema import ANY, BOOLEAN, array, integer, mapping, obj, text
from harken.web.operations import Call, Json


@operation("GET", "/api/projects/{project}/models", "reader", summary="Which model won: win rates and strengths by source",
           query={"use_case": text(100), "tag": text(100), "group": text(200)},
           answer=obj({"votes": integer(), "ties": integer(), "missing": integer(), "same_model": integer(),
                       "identical_texts": integer(), "prior": BOOLEAN, "models": array(mapping(ANY, 20), 0, 1000),
                       "win_rates": array(array(ANY, 0, 1000), 0, 1000), "ranking": mapping(ANY, 20)}), errors=(409,))
def which_model(call: Call) -> Json:
    project = find_project(call.tx, call.path["project"])
    asked = {name: call.query[name] for name in ("use_case", "tag", "group") if call.query.get(name)}
    try:
        votes = votes_of_project(call.tx, project.id, **asked)
        ranking, prior = ranked(votes)
    except UserError as error:
        raise ApiError.of(error, "conflict") from None
    table = ranking.to_json()
    models, rates = table.pop("models"), table.pop("win_rates")
    return {"votes": len(votes.prompts), "ties": sum(w == 0 for w in votes.won), "missing": votes.missing,
            "same_model": votes.same_model, "identical_texts": votes.identical, "prior": prior, "models": models,
            "win_rates": rates, "ranking": table}

"""The API's operation for a labeler's own answers."""

from __future__ import annotations

from harken.studio.api.declare import operation
from harken.studio.api.label import MESSAGE
from harken.studio.work.forms import ANY_ANSWER
from harken.studio.work.leases import my_assignment, visible_project
from harken.studio.work.mine import QUEUES, my_answers, queue_sizes
from harken.studio.work.remarks import add_comment, comments_on
from harken.web.json_schema import ID, TIME, array, enum, integer, nullable, obj, text
from harken.web.operations import Call, Json

COMMENT = obj({"comment": ID, "labeler": text(200), "labeler_id": ID, "author": text(200), "text": text(4000), "at": TIME})
MINE = obj(
    {
        "comments": array(COMMENT, 0, 1000),
        "assignment": ID,
        "kind": text(20),
        "queue": enum(*QUEUES, "given_back"),
        "at": TIME,
        "prompt": array(MESSAGE, 0, 10_000),
        "completions": array(text(10**7), 0, 9),
        "answer": nullable(ANY_ANSWER),
        "reason": nullable(text(2000)),
    }
)


@operation("GET", "/api/projects/{project}/mine", "labeler", summary="Your own tasks here and what you said, the newest first",
           query={"queue": enum(*QUEUES), "q": text(200), "before": ID, "limit": integer(1, 100)},
           answer=obj({"items": array(MINE, 0, 100), "before": nullable(ID),
                       "queues": obj({name: integer() for name in QUEUES})}))
def list_mine(call: Call) -> Json:
    project = visible_project(call.tx, call.user, call.path["project"]).id
    limit = int(call.query.get("limit", 50))
    before = call.query.get("before")
    rows = my_answers(call.tx, call.user, project, queue=call.query.get("queue"), words=call.query.get("q", "").strip(),
                      before=None if before is None else int(before), limit=limit + 1)
    said = comments_on(call.tx, [row["item"] for row in rows], call.user.id)
    rows = [row | {"comments": said.get(row.pop("item"), [])} for row in rows]
    return {"items": rows[:limit], "before": rows[limit - 1]["assignment"] if len(rows) > limit else None,
            "queues": queue_sizes(call.tx, call.user, project)}


@operation("POST", "/api/assignments/{assignment}/comments", "labeler", summary="Write to the leads about one of your own tasks",
           body=obj({"text": text(4000, 1)}), answer=obj({"comment": ID}), errors=(409,), writes=True)
def comment_on_mine(call: Call) -> Json:
    mine = my_assignment(call.tx, call.user, call.path["assignment"])
    return {"comment": add_comment(call.tx, mine.item_id, call.user.id, call.user, call.body["text"], call.now)}

"""Projects and their items: what is asked of whom.

    project = create_project(tx, {"name": "helpful", "kind": "rate_and_rank", "overlap": 2}, now, seed=0)
    add_items(tx, project, [{"prompt": "Hi", "completions": ["Hello.", {"text": "Yo", "source": "runs/sft"}]}], now)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import Connection, Row, func, insert, select, update

from harken.core.records import EXTRA, Choice, Completion, Demonstration, Prompt, Role, content_hash, repeats
from harken.store import audit_notes, events
from harken.store.events import stamp
from harken.store.migration_5 import texts_of
from harken.store.names import name_key
from harken.store.rows import prompt_key, prompt_row
from harken.store.schema import completions, prompts
from harken.store.shapes import Record
from harken.store.studio_schema import assignments, forms, instructions, item_texts, items, projects, users
from harken.studio.tasks import KINDS, PROMPT_FLAGS, PROMPT_KINDS, TASKS, USE_CASES
from harken.studio.work.forms import check_form, default_form, read_answer
from harken.studio.work.leases import count, find_item, find_member, find_project, let_go_unbegun, may_answer
from harken.studio.work.settings import CATEGORIES, PRESETS, SETTINGS, Settings, instruction_hash, names_its_maker, preset
from harken.web.accounts import as_user
from harken.web.errors import ApiError
from harken.web.json_schema import ANY, BOOLEAN, Schema, array, check, either, enum, integer, mapping, nullable, obj, text

LONGEST = 200_000
LINE_ENDS = re.compile("[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]")
MESSAGE = obj({"role": enum(*get_args(Role)), "content": text(LONGEST), **dict.fromkeys(EXTRA, ANY)}, optional=EXTRA)
COMPLETION = either(text(LONGEST, 1), obj({"text": text(LONGEST, 1), "source": nullable(text(500))}, optional=("source",)))
GOLD = obj({"ranks": array(integer(1, 9), 2, 9), "prompt_flags": array(enum(*PROMPT_FLAGS), 0, 11),
            "ratings": array(obj({"flags": mapping(nullable(BOOLEAN), 40)}), 2, 9)},
            optional=("ranks", "prompt_flags", "ratings"))
ASK = obj({"kind": nullable(enum(*PROMPT_KINDS)), "use_case": nullable(enum(*USE_CASES)), "text": text(4000)},
          optional=("kind", "use_case"))
ITEM: Schema = obj({
    "prompt": either(text(LONGEST, 1), array(MESSAGE, 1, 1000)), "use_case": nullable(text(100)), "tags": array(text(100), 0, 50),
    "prompt_kind": enum(*PROMPT_KINDS), "split": nullable(text(40)), "meta": mapping(ANY, 100),
    "tools": array(mapping(ANY, 100), 0, 100),
    "completions": array(COMPLETION, 0, 9), "original": text(LONGEST, 1), "ask": ASK,
    "warnings": array(enum(*CATEGORIES), 0, len(CATEGORIES)), "role": enum("task", "gold", "qualify"), "gold": GOLD,
    "kind": enum(*KINDS),
    "suggestion": obj({"answer": mapping(ANY, 30), "source": nullable(text(500))}, optional=("source",))})
ITEM["required"] = []
BATCH = 500


def create_project(tx: Connection, wanted: Mapping[str, Any], now: datetime, *, user_id: int | None = None, seed: int = 0) -> int:
    """A new project with InstructGPT's form and the preset of its purpose, unless told otherwise. Returns its id."""
    name = _free_name(tx, wanted["name"])
    settings = {k: v for k, v in wanted.items() if k in SETTINGS["properties"]}
    purpose = wanted.get("purpose", "train")
    wording = wanted.get("instructions") or {"preset": purpose}
    row = {"name": name, "kind": wanted["kind"], "purpose": purpose, "status": "open",
           "settings": _settings({}, settings), "form_version": store_form(tx, default_form(wanted["kind"]), now),
           "instruction_hash": store_instructions(tx, wording, now), "instruction_version": 1,
           "seed": wanted.get("seed", seed), "items_total": 0, "items_done": 0, "reopened": 0, "created_at": stamp(now)}
    for kind in KINDS:
        store_form(tx, default_form(kind), now)  # a qualifying test may ask for another kind
    key = tx.execute(insert(projects), row).inserted_primary_key
    assert key is not None
    events.add(tx, "project", now, user_id=user_id, project_id=key[0],
               body={"name": name, "settings": row["settings"], "hash": row["instruction_hash"]})
    return int(key[0])


def _free_name(tx: Connection, wanted: str, project: int | None = None) -> str:
    """A project's name as it is stored. Raises ApiError where another's differs from it in case or blanks at most."""
    name = " ".join(wanted.split())
    if not any(c.isprintable() and not c.isspace() for c in name):
        raise ApiError("bad_request", "The project's name is blank.", "Give it a name that people can read.")
    there = find_named(tx, name, but=project)
    if there is not None:
        raise ApiError("conflict", f"There is a project {there.name} already.", "Choose another name.")
    return name


def find_named(tx: Connection, name: str, but: int | None = None) -> Row[Any] | None:
    """The project of a name as people write it, in any case; of two that were named so before, the one written the same."""
    rows = [row for row in tx.execute(select(projects).order_by(projects.c.id))
            if row.id != but and name_key(row.name) == name_key(name)]
    return next((row for row in rows if row.name == name), rows[0] if rows else None)


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as stored: what was asked for, checked as a whole."""
    merged = {**old, **new}
    overlap = merged.get("overlap")
    if isinstance(overlap, Mapping) and overlap["min"] > overlap["max"]:
        raise ApiError("bad_request", f"The overlap's min {overlap['min']} is above its max {overlap['max']}.", "Swap them.")
    settings = Settings.from_json(merged)
    if settings.gold_rate + settings.repeat_rate > 0.9:
        raise ApiError("bad_request", "gold_rate and repeat_rate leave less than a tenth for the tasks themselves.")
    return merged


def store_form(tx: Connection, form: dict[str, Any], now: datetime) -> str:
    if tx.execute(select(forms.c.version).where(forms.c.version == form["version"])).first() is None:
        tx.execute(insert(forms), {"version": form["version"], "body": form, "created_at": stamp(now)})
    return str(form["version"])


def store_instructions(tx: Connection, wording: Mapping[str, Any], now: datetime) -> str:
    """Stores a wording once; returns its hash, which every answer given under it carries."""
    name = wording.get("preset")
    words = preset(name) if name in PRESETS else wording["text"]
    if not words.strip():
        raise ApiError("bad_request", "The instructions are blank.", "Say what labelers shall look for.")
    digest = instruction_hash(words)
    if tx.execute(select(instructions.c.hash).where(instructions.c.hash == digest)).first() is None:
        tx.execute(insert(instructions), {"hash": digest, "text": words, "preset": name, "created_at": stamp(now)})
    return digest


def set_instructions(tx: Connection, project: int, wording: Mapping[str, Any], now: datetime, user_id: int | None = None) -> None:
    row, digest = find_project(tx, project), store_instructions(tx, wording, now)
    if digest != row.instruction_hash:
        tx.execute(update(projects).where(projects.c.id == project).values(
            instruction_hash=digest, instruction_version=row.instruction_version + 1))
        events.add(tx, "instructions", now, user_id=user_id, project_id=project, body={"hash": digest})


def set_form(tx: Connection, project: int, form: dict[str, Any], now: datetime, user_id: int | None = None) -> None:
    row = find_project(tx, project)
    version = store_form(tx, check_form(form, row.kind), now)
    if version != row.form_version:
        tx.execute(update(projects).where(projects.c.id == project).values(form_version=version))
        events.add(tx, "form", now, user_id=user_id, project_id=project, body={"version": version})


def change_project(tx: Connection, project: int, changes: Mapping[str, Any], now: datetime, user_id: int | None = None) -> None:
    """Changes name, status or settings. A higher overlap opens finished items again; a lower one closes open ones."""
    row = find_project(tx, project)
    settings = _settings(row.settings, {k: v for k, v in changes.items() if k in SETTINGS["properties"]})
    rest = {k: changes[k] for k in ("name", "status") if k in changes}
    if "name" in rest and rest["name"] != row.name:
        rest["name"] = _free_name(tx, rest["name"], project)
    tx.execute(update(projects).where(projects.c.id == project).values(settings=settings, **rest))
    event = events.add(tx, "change", now, user_id=user_id, project_id=project, body=dict(changes))
    if "overlap" in changes:
        set_overlap(tx, project, Settings.from_json(settings).overlap_min, event)


def set_overlap(tx: Connection, project: int, wanted: int, event: int) -> None:
    """Every task of a project gets the overlap, in one statement; a place held beyond it brings a surplus answer."""
    c = items.c
    own = (c.project_id == project) & (c.role == "task")
    least = func.max if tx.dialect.name == "sqlite" else func.greatest
    state = _case((c.state == "set_aside", "set_aside"), (c.done >= wanted, "done"), other="open")
    free = _case((c.state == "set_aside", 0), other=least(0, wanted - c.done - c.held))
    tx.execute(update(items).where(own).values(wanted=wanted, state=state, free=free,
                                               reopened=_case((free > c.free, event), other=c.reopened)))
    done = select(func.count()).select_from(items).where(own, c.state == "done").scalar_subquery()
    tx.execute(update(projects).where(projects.c.id == project).values(items_done=done, reopened=event))


def _case(*whens: Any, other: Any) -> Any:
    from sqlalchemy import case
    return case(*whens, else_=other)


def add_items(tx: Connection, project: int, rows: Iterable[Mapping[str, Any]], now: datetime,
              user_id: int | None = None) -> dict[str, int]:
    """Adds items at the end of the line; one that is there already (equal in all it asks) is not added again."""
    owner = find_project(tx, project)
    settings = Settings.from_json(owner.settings)
    place = tx.execute(select(func.max(items.c.position)).where(items.c.project_id == project)).scalar() or 0
    total = [0] * 5
    batch: list[dict[str, Any]] = []
    new: list[dict[str, Any]] = []
    for n, item in enumerate(rows, 1):
        try:
            _check_numbers(dict(item))  # first: it names the place
            check(ITEM, dict(item), "")
            row = _item_row(tx, owner, settings, item, now)
        except (ApiError, ValueError) as error:
            raise ApiError("bad_request", f"Item {n}: {str(error).replace('the body', 'the item').rstrip('.')}.",
                           "Correct it and send all items again: none was added.") from None
        batch.append(row)
        if len(batch) == BATCH:
            total, batch = _sum(total, _store(tx, owner, batch, place + total[0], new)), []
    added, already, tasks, unblinded, repeating = _sum(total, _store(tx, owner, batch, place + total[0], new))
    tx.execute(update(projects).where(projects.c.id == project).values(items_total=projects.c.items_total + tasks))
    events.add(tx, "items", now, user_id=user_id, project_id=project,
               body={"added": added, "already": already, **audit_notes.new_items(new)})
    return {"added": added, "already": already, "names_its_maker": unblinded, "repeats_an_answer": repeating}


def _check_numbers(item: Mapping[str, Any]) -> None:
    """Refuses NaN and infinities, which are no JSON and which PostgreSQL does not take."""
    level: list[tuple[str, Any]] = list(item.items())
    while level:
        inner: list[tuple[str, Any]] = []
        for name, value in level:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f'"{name}" is {value}, which is no JSON number (a missing one is null)')
            if isinstance(value, Mapping):
                inner += [(f"{name}.{key}", v) for key, v in value.items()]
            elif isinstance(value, list):
                inner += [(f"{name}[{i}]", v) for i, v in enumerate(value)]
        level = inner


def _sum(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(one, other)]


def _item_row(tx: Connection, project: Row[Any], settings: Settings, given: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """One item as stored, with its prompt and completions under keys that begin with an underscore."""
    kind, role = given.get("kind", project.kind), given.get("role", "task")
    judged = list(given.get("completions", []))
    if "original" in given:
        judged = [given["original"], *judged]
    texts = [c if isinstance(c, str) else c["text"] for c in judged]
    sources = [None if isinstance(c, str) else c.get("source") for c in judged]
    task = TASKS[kind]
    fewest, most = task.completions
    if not fewest <= len(texts) <= most:
        wanted = f"{fewest} to {most}" if fewest < most else fewest or "no"
        raise ValueError(f'"{kind}" needs {wanted} completion{"s" * (wanted != 1)}, found {len(texts)}')
    if kind != project.kind and role != "qualify":
        raise ValueError(f'only a qualifying item may be of another kind ("{kind}") than the project ("{project.kind}")')
    if "gold" in given and len(given["gold"].get("ranks", texts)) != len(texts):
        raise ValueError('"gold.ranks" has another length than "completions"')
    if not task.writes_prompt and "prompt" not in given:
        raise ValueError('"prompt" is missing')
    prompt = _prompt(given) if "prompt" in given else None
    ask = given.get("ask", {"text": "Write a prompt."}) if task.writes_prompt else None
    named = [*given.get("tags", ()), *(s for s in sources if s)]
    if bad := [name for name in named if not name.strip() or LINE_ENDS.search(name)]:
        raise ValueError(f"{bad[0][:40]!r} is no tag or source: it is blank or has several lines")
    body = {"completions": [{"text": t, "source": s} for t, s in zip(texts, sources)], "ask": ask, "gold": given.get("gold"),
            "names_its_maker": any(map(names_its_maker, texts))}
    if "suggestion" in given:
        body["suggestion"] = _suggestion(tx, project, kind, texts, given["suggestion"])
    content = content_hash([kind, role, prompt.to_json() if prompt else None, body])[:32]
    warnings = ",".join(sorted(set(given.get("warnings", [])))) or None
    return {"project_id": project.id, "role": role, "kind": kind, "body": body, "warnings": warnings, "content": content,
            "state": "open", "wanted": settings.overlap_min, "done": 0, "held": 0,
            "free": settings.overlap_min if role == "task" else 0, "reopened": 0, "skips": 0, "flags": 0,
            "created_at": stamp(now), "prompt_key": prompt_key(prompt) if prompt else None, "_prompt": prompt}


def _suggestion(tx: Connection, project: Row[Any], kind: str, texts: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """A model's answer to an item, as it would be stored were it a labeler's; in the item's own order."""
    stored = tx.execute(select(forms.c.body).where(forms.c.version == project.form_version)).scalar()
    form = stored if stored is not None and kind == project.kind else default_form(kind)
    payload = read_answer(form, texts, range(len(texts)), dict(given["answer"]))
    return {"payload": {k: v for k, v in payload.items() if k != "questions"}, "source": given.get("source")}


def _prompt(given: Mapping[str, Any]) -> Prompt:
    row = {k: given[k] for k in ("prompt", "use_case", "tags", "split", "meta", "tools") if k in given}
    return Prompt.from_json(row | ({"kind": given["prompt_kind"]} if "prompt_kind" in given else {}))


def _store(tx: Connection, project: Row[Any], batch: list[dict[str, Any]], place: int,
           added: list[dict[str, Any]]) -> tuple[int, int, int, int, int]:
    """Stores a batch; returns how many were added, there already, and of those added: tasks, naming their maker, with the
    same answer twice. `added` gets what the audit covers of each."""
    wanted = {row["content"]: row for row in batch}
    stored = set(tx.scalars(select(items.c.content).where(items.c.project_id == project.id, items.c.content.in_(wanted))))
    fresh = [row for content, row in wanted.items() if content not in stored]
    asked = {row["prompt_key"]: row["_prompt"] for row in fresh if row["_prompt"] is not None}
    there = set(tx.scalars(select(prompts.c.key).where(prompts.c.key.in_(asked))))
    new = [prompt_row(prompt, fresh[0]["created_at"]) for key, prompt in asked.items() if key not in there]
    if new:
        tx.execute(insert(prompts), new)
    if fresh:
        tx.execute(insert(items), [{k: v for k, v in row.items() if k != "_prompt"} | {"position": place + n}
                                   for n, row in enumerate(fresh, 1)])
        _store_completions(tx, fresh)
        _index(tx, project.id, fresh)
    fixed = ("project_id", "role", "kind", "prompt_key", "content", "created_at", "warnings")
    added += [{k: row[k] for k in fixed} for row in fresh]
    tasks = sum(row["role"] == "task" for row in fresh)
    return (len(fresh), len(batch) - len(fresh), tasks, sum(row["body"]["names_its_maker"] for row in fresh),
            sum(repeats(c["text"] for c in row["body"]["completions"]) for row in fresh))


def _index(tx: Connection, project: int, fresh: list[dict[str, Any]]) -> None:
    """Puts new items into the search."""
    query = select(items.c.id, items.c.content).where(items.c.project_id == project,
                                                      items.c.content.in_([row["content"] for row in fresh]))
    numbers = {row.content: row.id for row in tx.execute(query)}
    tx.execute(insert(item_texts), [
        {"item_id": numbers[row["content"]], "project_id": project,
         **texts_of(row["_prompt"].to_json() if row["_prompt"] else None, row["body"])} for row in fresh])


def _store_completions(tx: Connection, fresh: list[dict[str, Any]]) -> None:
    """Completions whose source is known join the database's own list of them."""
    rows = {}
    for row in fresh:
        for c in row["body"]["completions"] if row["_prompt"] else ():
            if c["source"]:
                one = Completion(row["_prompt"].id, c["text"], c["source"])
                rows[one.id] = {"id": one.id, "prompt_id": one.prompt_id, "text": one.text, "source": one.source,
                                 "created_at": row["created_at"]}
    there = set(tx.scalars(select(completions.c.id).where(completions.c.id.in_(rows))))
    if new := [row for key, row in rows.items() if key not in there]:
        tx.execute(insert(completions), new)


def items_of(record: Record) -> dict[str, Any]:
    """An item for a record of a file: a comparison's completions are asked about anew, its ranks are not shown."""
    prompt = record if isinstance(record, Prompt) else record.prompt
    row = {k: v for k, v in prompt.to_json().items() if k != "kind"}
    row |= {"prompt_kind": prompt.kind}
    if isinstance(record, Choice):
        return row | {"completions": list(record.options)}
    return row | {"original": record.completion} if isinstance(record, Demonstration) else row


def change_item(tx: Connection, item: int, changes: Mapping[str, Any], now: datetime, user_id: int | None = None) -> Row[Any]:
    """A lead's hand on one item: set aside or open again, another overlap, warnings, the people it is for (none: everybody)."""
    row = find_item(tx, item)
    changes = dict(changes)
    if "assigned" in changes:
        changes["assigned"] = _people(tx, row, changes["assigned"])
    event = events.add(tx, "item", now, user_id=user_id, project_id=row.project_id, item_id=item, body=dict(changes))
    if "warnings" in changes:
        tx.execute(update(items).where(items.c.id == item).values(warnings=",".join(sorted(set(changes["warnings"]))) or None))
    if "assigned" in changes:
        ids = changes["assigned"]
        tx.execute(update(items).where(items.c.id == item).values(assigned="".join(f",{i}" for i in ids) + "," if ids else None))
        if ids:  # whoever holds it and has not begun makes room
            let_go_unbegun(tx, now, assignments.c.item_id == item, assignments.c.user_id.not_in(ids))
            row = find_item(tx, item)
    if row.role == "task":
        count(tx, row, wanted=changes.get("overlap"), reopened=event,
              state={"open": "open", "set_aside": "set_aside", None: None}[changes.get("state")])
    elif "state" in changes:
        tx.execute(update(items).where(items.c.id == item).values(state=changes["state"]))
    return find_item(tx, item)


def _people(tx: Connection, item: Row[Any], wanted: Sequence[int]) -> list[int]:
    """Those to whom an item may be assigned, or ApiError."""
    if item.role != "task":
        raise ApiError("conflict", f"Item {item.id} is a {item.role} item: everybody gets it.")
    active = set(
        tx.scalars(select(users.c.id).where(users.c.id.in_(wanted), users.c.state == "active", users.c.role != "viewer"))
    )
    if missing := sorted(set(wanted) - active):
        raise ApiError("bad_request", f"There is no active labeler {missing[0]}.", "GET /api/users lists them.")
    project = find_project(tx, item.project_id)
    for person in sorted(active):
        user = as_user(tx.execute(select(users).where(users.c.id == person)).one())
        if not may_answer(project, find_member(tx, project.id, person), user):
            raise ApiError("bad_request", f"{user.name} may not answer in this project.", "Add them to it first.")
    return sorted(active)

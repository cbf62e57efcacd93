"""Whether a database holds what its audit says: every row against its own hash, and against the event it came with.

    report = audit.check(connection, expect=earlier_end)     # report.problems: sentences, none where all is well

A judgment's `content` and a prompt's `key` are recomputed; each answer of the studio is compared with its event, each import
with the hash its event holds, each retraction with the undo, withdrawal or lead's decision that made it, and the other way
round. What can change (a role, an item's counters) is worked out anew from the events. Whoever rewrites rows and the whole
chain leaves another end: that shows only where an earlier end was kept (`expect`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select, text

from harken.core.errors import UserError
from harken.core.records import content_hash
from harken.store.audit_notes import LINES, USER, digest_of, entry_of, items_digest, least, stream
from harken.store.redaction import EMPTY_PROMPT, REDACTED, SAID, left_of_event, left_of_judgments
from harken.store.schema import imports, judgments, metadata, prompts
from harken.store.studio_schema import assignments, comments, items, retractions, reviews, users
from harken.store.studio_schema import events as event_table

MOST_PROBLEMS = 50
"""Told at most; a database with more is not looked at further."""


@dataclass(frozen=True)
class Report:
    """What an audit came to. `end` is the newest event's hash, `rows` counts by table."""

    problems: tuple[str, ...]
    end: str
    rows: Mapping[str, int]
    redacted: int = 0
    """People whose data were erased on request: what is left of their rows is what the audit says."""


class _TooMany(Exception):
    """So much is wrong that more sentences help nobody."""


@dataclass
class _State:
    """What the events say must be stored."""

    problems: list[str] = field(default_factory=list)
    turns: dict[int, int] = field(default_factory=dict)
    """Assignments that are repeats."""
    ranges: list[tuple[str, int, int, int, str]] = field(default_factory=list)
    """(table, first, last, rows, digest) of rows that an event covers as they were stored."""
    imports: dict[int, str] = field(default_factory=dict)
    undone: dict[int, str] = field(default_factory=dict)
    aside: dict[int, str] = field(default_factory=dict)
    """When a lead set a judgment aside."""
    withdrawals: list[Mapping[str, Any]] = field(default_factory=list)
    users: dict[int, dict[str, Any]] = field(default_factory=dict)
    settings: dict[int, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    items: dict[int, _Item] = field(default_factory=dict)
    groups: dict[tuple[int, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    """Items by project and time: what one event added."""
    added: Counter[tuple[int, str]] = field(default_factory=Counter)
    digests: dict[tuple[int, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    left: dict[int, str] = field(default_factory=dict)
    """Redacted events: the hash of what is left of each."""
    redactions: list[Mapping[str, Any]] = field(default_factory=list)
    """What was erased, by the events that did it."""
    comments: dict[int, str] = field(default_factory=dict)
    accepted: dict[int, str] = field(default_factory=dict)
    opened: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Events that may have freed places in all of a project."""

    def wrong(self, words: str) -> None:
        self.problems.append(words)
        if len(self.problems) >= MOST_PROBLEMS:
            raise _TooMany


@dataclass
class _Item:
    """An item as stored (`row`), and what the events say of it."""

    row: Mapping[str, Any]
    wanted: int = 0
    aside: bool = False
    warnings: str | None = None
    skips: int = 0
    flags: int = 0
    freed: dict[int, bool] = field(default_factory=dict)
    """Events that may have freed a place of it; whether one surely did, unless a lead had a hand in it."""
    by_hand: bool = False
    assigned: str | None = None


def verify(connection: Connection, name: str) -> Report:
    """`check`, as a `UserError` where anything is wrong."""
    report = check(connection)
    if report.problems:
        more = f" And {len(report.problems) - 1} more." if len(report.problems) > 1 else ""
        raise UserError(f"{name} does not hold what its audit says. {report.problems[0]}{more}",
                        f"harken audit --db {name} lists all of it; compare with a backup from before.")
    return report


def check(connection: Connection, expect: str | None = None) -> Report:
    """Reads the whole database once. `expect` is the end of its audit at an earlier time, or a beginning of that hash."""
    state = _State()
    rows = {t.name: int(connection.execute(select(func.count()).select_from(t)).scalar() or 0) for t in metadata.sorted_tables}
    end = ""
    try:
        for row in stream(connection, select(assignments.c.id, assignments.c.turn).where(assignments.c.turn != 0)):
            state.turns[row.id] = row.turn
        for row in stream(connection, select(items).order_by(items.c.id)):
            state.items[row.id] = _Item({k: v for k, v in row._mapping.items() if k != "body"})
            state.groups[row.project_id, row.created_at].append(row.id)
        end = _events(connection, state, expect)
        _redactions(connection, state)
        _numbers(connection, state)
        _prompts(connection, state)
        _ranges(connection, state)
        _judgments(connection, state)
        _retractions(connection, state)
        _users(connection, state)
        _items(connection, state)
        _remarks(connection, state)
    except _TooMany:
        pass
    return Report(tuple(state.problems), end, rows, len(state.redactions))


def _events(connection: Connection, state: _State, expect: str | None) -> str:
    """Walks the chain, and works out what the events say."""
    before, after, seen = "", 0, expect is None
    for found in stream(connection, select(event_table).order_by(event_table.c.seq)):
        row = found._mapping
        name = f"event {row['seq']} ({row['kind']})"
        content = {k: v for k, v in row.items() if k not in ("seq", "hash")}
        numbered = not isinstance(row["body"], dict) or row["body"].get("after", after) == after
        whole = content_hash([before, content]) == row["hash"]
        if not whole and isinstance(row["body"], dict) and row["body"].get("redacted"):
            state.left[row["seq"]] = left_of_event(row)  # a later event must say so
            whole = True
        if not whole or not numbered:
            state.wrong(f"The audit was changed: {name} does not match its hash, or one before it is missing.")
        before, after = row["hash"], row["seq"]
        seen = seen or before.startswith(expect or "-")
        try:
            _replay(state, row)
        except (KeyError, TypeError, ValueError, AttributeError):
            state.wrong(f"The audit was changed: {name} cannot be read.")
    if not seen:
        state.wrong(f"The audit does not contain {expect}: its last events were removed, or the whole of it was rewritten.")
    return str(before)


def _redactions(connection: Connection, state: _State) -> None:
    """What was redacted is what an event says of it, and nothing more."""
    said: dict[int, str] = {}
    for body in state.redactions:
        said |= {int(seq): digest for seq, digest in body["events"].items()}
        left = left_of_judgments(connection, body["alias"])
        if len(left) != body["judgments"] or content_hash(left) != body["hash"]:
            state.wrong(f"What is left of the answers of {body['alias']} is not what their erasure left.")
    for seq in said.keys() | state.left.keys():
        if said.get(seq) != state.left.get(seq):
            state.wrong(f"The audit was changed: event {seq} does not match its hash, and no erasure explains it.")


def _remarks(connection: Connection, state: _State) -> None:
    """Comments and accepted answers, by their events. A comment that was erased has no text."""
    erased = {body["user"] for body in state.redactions}
    for row in stream(connection, select(comments).order_by(comments.c.id)):
        digest = state.comments.pop(row.id, None)
        gone = row.text is None and {row.author_id, row.labeler_id} & erased
        if digest is None or not (gone or content_hash([row.item_id, row.labeler_id, row.author_id, row.text]) == digest):
            state.wrong(f"Comment {row.id} is not what an event says.")
    for row in stream(connection, select(reviews)):
        if state.accepted.pop(row.judgment_seq, None) != row.created_at:
            state.wrong(f"The acceptance of judgment {row.judgment_seq} is not what an event says.")
    for what, left in (("Comment", state.comments), ("The acceptance of judgment", state.accepted)):
        for number in left:
            state.wrong(f"{what} {number} is missing.")


def _replay(state: _State, row: Mapping[str, Any]) -> None:
    """What one event says must be stored."""
    kind, body = row["kind"], row["body"]
    if kind == "import":
        state.ranges += [(name, *body[name]) for name in ("judgments", "prompts") if name in body]
        if body["import"] is not None:
            state.imports[body["import"]] = body["entry"]
    elif kind == "covers":
        _replay_covers(state, body)
    elif kind == "items":
        _replay_added(state, row)
    elif kind in ("project", "change"):
        _replay_settings(state, row)
    elif kind == "undo" and body["undone"] == "submit":
        state.undone[row["judgment_seq"]] = row["created_at"]
    elif kind == "set_aside":
        state.aside[row["judgment_seq"]] = row["created_at"]
    elif kind == "accept":
        state.accepted[row["judgment_seq"]] = row["created_at"]
    elif kind == "comment":
        state.comments[body["comment"]] = body["hash"]
    elif kind == "redact":
        state.redactions.append(body)
    elif kind == "withdraw":
        state.withdrawals.append(row)
        for user in state.users.values():
            if user["name"] == body["labeler"]:
                user["state"] = "withdrawn"
    elif kind in ("user", "user_change"):
        _replay_user(state, row)
    item = state.items.get(row["item_id"])
    if item is not None:
        _replay_item(state, item, row)


def _replay_covers(state: _State, body: Mapping[str, Any]) -> None:
    """A database of before this audit: what it held when it was brought up to date."""
    state.ranges += [(name, *body[name]) for name in LINES if name in body]
    state.imports |= {int(k): v for k, v in body["imports"].items()}
    for number, user in body["users"].items():
        state.users[int(number)] = dict(user)
    last = body["items"][1] if "items" in body else 0
    for number, item in state.items.items():
        if number <= last:
            item.wanted = body["wanted"].get(str(number), least(state.settings[item.row["project_id"]]))
            item.warnings = body["warnings"].get(str(number))
            item.aside = number in body["aside"]


def _replay_added(state: _State, row: Mapping[str, Any]) -> None:
    key, body = (row["project_id"], row["created_at"]), row["body"]
    state.added[key] += body["added"]
    state.digests[key].append(body.get("hash", ""))
    for number in state.groups.get(key, ()):
        item = state.items[number]
        item.wanted = least(state.settings[key[0]])
        item.warnings = body.get("warnings", {}).get(item.row["content"], item.warnings)


def _replay_settings(state: _State, row: Mapping[str, Any]) -> None:
    project, body = row["project_id"], row["body"]
    told = body["settings"] if row["kind"] == "project" else body
    state.settings[project].update({k: v for k, v in told.items() if k not in ("name", "status", "after")})
    if row["kind"] == "change" and "overlap" in body:
        state.opened[project].add(row["seq"])
        for item in state.items.values():
            if item.row["project_id"] == project and item.row["role"] == "task":
                item.wanted = least(state.settings[project])


def _replay_user(state: _State, row: Mapping[str, Any]) -> None:
    body = row["body"]
    if row["kind"] == "user":
        start = {"name": body["name"], "role": body["role"], "state": "active"}
        state.users[row["user_id"]] = start | {k: body[k] for k in ("held_out", "labeler_group") if k in body}
        return
    values = {{"group": "labeler_group"}.get(k, k): v for k, v in body.items() if k not in ("user", "after")}
    state.users.setdefault(body["user"], {}).update(values)


def _replay_item(state: _State, item: _Item, row: Mapping[str, Any]) -> None:
    """Skips, refusals, what a lead set, and how many answers an unsettled item asked for."""
    kind, body = row["kind"], row["body"]
    undone = body.get("undone") if kind == "undo" else None
    own = item.row["role"] == "task" and not state.turns.get(row["assignment_id"])
    item.by_hand = item.by_hand or kind == "item" or "aside" in body
    older = kind == "submit" and "role" not in body  # of a database of before, whose events said less
    if own and (kind in ("expire", "release", "skip", "unsafe", "item") or "wanted" in body or older):
        item.freed[row["seq"]] = kind in ("expire", "release") or "wanted" in body
    if own and kind == "set_aside":
        item.freed[row["seq"]] = body["counted"]
    if own and (kind in ("skip", "unsafe") or undone in ("skip", "unsafe")):
        by = -1 if undone else 1
        item.skips += by
        item.flags += by if "unsafe" in (kind, undone) else 0
    if kind == "item":
        item.wanted = body.get("overlap", item.wanted) if item.row["role"] == "task" else item.wanted
        if "warnings" in body:
            item.warnings = ",".join(sorted(set(body["warnings"]))) or None
        if "assigned" in body:
            item.assigned = "".join(f",{i}" for i in body["assigned"]) + "," if body["assigned"] else None
        if "state" in body:
            item.aside = body["state"] == "set_aside"
    elif kind == "submit":
        item.wanted = body.get("wanted", item.wanted)
    item.aside = body.get("aside", item.aside)


def _numbers(connection: Connection, state: _State) -> None:
    """SQLite keeps the highest number it ever gave: where a table ends below it, its last rows are gone."""
    if connection.dialect.name != "sqlite":
        return
    given: dict[str, int] = dict(connection.execute(text("SELECT name, seq FROM sqlite_sequence")).tuples().all())
    for name, column in (("events", event_table.c.seq), ("judgments", judgments.c.seq), ("items", items.c.id),
                         ("imports", imports.c.seq), ("users", users.c.id)):
        last = connection.execute(select(func.max(column))).scalar() or 0
        if last != given.get(name, last):
            state.wrong(f"The last of the {name} are missing or renumbered: number {given[name]} was given, the last is {last}.")


def _prompts(connection: Connection, state: _State) -> None:
    erased = {seq for body in state.redactions for seq in body["prompts"]}
    for row in stream(connection, select(prompts)):
        if content_hash(row.body)[:32] != row.key and not (row.seq in erased and row.body == EMPTY_PROMPT):
            state.wrong(f"Prompt {row.seq} was changed: it does not match its key.")


def _ranges(connection: Connection, state: _State) -> None:
    """Rows that an event covers as they were stored."""
    for table, first, last, count, digest in state.ranges:
        found, now = digest_of(connection, table, first, last)
        if found != count:
            state.wrong(f"Of the {table} {first} to {last} there were {count}, now there are {found}.")
        elif now != digest:
            state.wrong(f"One of the {table} {first} to {last} was changed.")
    stored = {row["seq"]: entry_of(row) for row in connection.execute(select(imports)).mappings()}
    for number in stored.keys() | state.imports.keys():
        if stored.get(number) != state.imports.get(number):
            state.wrong(f"Import {number} is not what its event says.")


def _judgments(connection: Connection, state: _State) -> None:
    """Each judgment's content, recomputed, and its event; then each event's judgment."""
    e = event_table.alias("e")
    aliases = {body["alias"] for body in state.redactions}
    covered = sorted((first, last) for table, first, last, *_ in state.ranges if table == "judgments")
    query = (select(judgments, e.c.seq.label("e_seq"), e.c.client_id.label("e_client"), e.c.item_id.label("e_item"),
                    e.c.created_at.label("e_at"), e.c.body.label("e_body"), assignments.c.turn)
             .outerjoin(e, (e.c.judgment_seq == judgments.c.seq) & (e.c.kind == "submit"))
             .outerjoin(assignments, assignments.c.id == e.c.assignment_id).order_by(judgments.c.seq))
    for found in stream(connection, query):
        row = found._mapping
        name = f"Judgment {row['seq']}"
        redacted = row["payload"] == REDACTED and row["labeler"] in aliases  # `_redactions` looked at what is left
        if not redacted and content_hash({c: row[c] for c in SAID}) != row["content"]:
            state.wrong(f"{name} was changed: it does not match its content hash.")
        if row["e_seq"] is not None:
            _with_event(state, name, row)
        elif not any(first <= row["seq"] <= last for first, last in covered):
            state.wrong(f"{name} stands in no event.")
    lost = select(e.c.seq, e.c.judgment_seq).outerjoin(judgments, judgments.c.seq == e.c.judgment_seq).where(
        e.c.kind == "submit", judgments.c.seq.is_(None))
    for row in stream(connection, lost):
        state.wrong(f"Judgment {row.judgment_seq} is missing: event {row.seq} stored it.")


def _with_event(state: _State, name: str, row: Mapping[str, Any]) -> None:
    body = row["e_body"]
    pairs = [("content", row["content"], body.get("content")), ("client id", row["client_id"], row["e_client"]),
             ("item", row["item_id"], row["e_item"]), ("time", row["created_at"], row["e_at"])]
    if "role" in body:
        pairs.append(("role", row["role"], body["role"]))
    if row["import_seq"] is not None:
        pairs.append(("import", row["import_seq"], None))
    for what, stored, said in pairs:
        if stored != said:
            state.wrong(f"{name} is not what event {row['e_seq']} says: its {what} differs.")


def _retractions(connection: Connection, state: _State) -> None:
    """Each retraction has its undo, withdrawal or lead's decision, and each of these its retractions."""
    made = {"undo": dict(state.undone), "set_aside": dict(state.aside)}
    e = event_table
    # A judgment on a served answer is taken back one by one, by its rater.
    taken_back = {row.judgment_seq: row.created_at for row in connection.execute(
        select(e.c.judgment_seq, e.c.created_at).where(e.c.kind == "retract"))}
    by_time: dict[str, list[tuple[int, str | None]]] = defaultdict(list)
    query = select(retractions, judgments.c.labeler).outerjoin(judgments, judgments.c.seq == retractions.c.judgment_seq)
    for row in stream(connection, query.order_by(retractions.c.judgment_seq)):
        if row.reason == "withdrawal" and taken_back.get(row.judgment_seq) == row.created_at:
            del taken_back[row.judgment_seq]
        elif row.reason == "withdrawal":
            by_time[row.created_at].append((row.judgment_seq, row.labeler))
        elif made.get(row.reason, {}).pop(row.judgment_seq, None) != row.created_at:
            state.wrong(f"The retraction of judgment {row.judgment_seq} is not what an event says.")
    for seq in [*made["undo"], *made["set_aside"], *taken_back]:
        state.wrong(f"The retraction of judgment {seq} is missing: an event took it back.")
    for row in state.withdrawals:
        body = row["body"]
        names = set(body.get("labelers", [body["labeler"]]))
        mine = [seq for seq, labeler in by_time[row["created_at"]] if labeler in names]
        by_time[row["created_at"]] = [one for one in by_time[row["created_at"]] if one[1] not in names]
        if len(mine) != body["judgments"] or body.get("hash", content_hash(mine)) != content_hash(mine):
            state.wrong(f"The retractions of the withdrawal in event {row['seq']} are not those it made.")
    for left in by_time.values():
        for seq, _ in left:
            state.wrong(f"The retraction of judgment {seq} is not what an event says.")


def _users(connection: Connection, state: _State) -> None:
    """Accounts: name, role, state, whether held out, group, by the events."""
    present = set()
    for row in connection.execute(select(users)).mappings():
        present.add(row["id"])
        if row["id"] not in state.users:
            state.wrong(f"Account {row['id']} stands in no event.")
        for name, value in state.users.get(row["id"], {}).items():
            if name in USER and row[name] != value:
                state.wrong(f"Account {row['id']}: its {name} is {row[name]!r}, by the audit {value!r}.")
    for number in state.users.keys() - present:
        state.wrong(f"Account {number} is missing.")


def _items(connection: Connection, state: _State) -> None:
    """What of an item never changes against its content and its event; its counters against answers, leases and events."""
    said = _counted(connection)
    held: dict[int, int] = dict(connection.execute(select(assignments.c.item_id, func.count()).where(
        assignments.c.state == "leased", assignments.c.turn == 0).group_by(assignments.c.item_id)).tuples().all())
    query = select(items.c.id, items.c.kind, items.c.role, items.c.body, items.c.content, prompts.c.body.label("asked"))
    for row in stream(connection, query.outerjoin(prompts, prompts.c.key == items.c.prompt_key).order_by(items.c.id)):
        if content_hash([row.kind, row.role, row.asked, row.body])[:32] != row.content:
            state.wrong(f"Item {row.id} was changed: it does not match its content hash.")
    places: dict[int, list[int]] = defaultdict(list)
    for number, item in state.items.items():
        places[item.row["project_id"]].append(item.row["position"])
        _counters(state, item, said.get(number, 0), held.get(number, 0))
    for key in state.groups.keys() | state.added.keys():
        group = [state.items[number].row for number in state.groups.get(key, ())]
        if len(group) != state.added[key]:
            state.wrong(f"Project {key[0]} has {len(group)} items of {key[1]}, by the audit {state.added[key]}.")
        elif len(state.digests[key]) == 1 and state.digests[key][0] not in ("", items_digest(group)):
            state.wrong(f"One of the items of {key[1]} in project {key[0]} was changed.")
    for project, where in places.items():
        if sorted(where) != list(range(1, len(where) + 1)):
            state.wrong(f"The items of project {project} do not stand in one line: a position was changed.")


def _counted(connection: Connection) -> dict[int, int]:
    """Answers that fill an item's places; a withdrawal opens none of them again."""
    gone = select(retractions.c.judgment_seq).where(retractions.c.reason.in_(("undo", "set_aside")))
    query = select(judgments.c.item_id, func.count()).where(
        judgments.c.item_id.is_not(None), judgments.c.role.is_(None), judgments.c.seq.not_in(gone)).group_by(judgments.c.item_id)
    return dict(connection.execute(query).tuples().all())


def _counters(state: _State, item: _Item, said: int, held: int) -> None:
    row, task = item.row, item.row["role"] == "task"
    done, held = (said, held) if task else (0, 0)
    status = "set_aside" if item.aside else "done" if task and done >= item.wanted else "open"
    free = max(0, item.wanted - done - held) if task and status == "open" else 0
    right = {"wanted": item.wanted, "done": done, "held": held, "free": free, "state": status, "skips": item.skips,
             "flags": item.flags, "warnings": item.warnings, "assigned": item.assigned}
    for name, value in right.items():
        if row[name] != value:
            state.wrong(f"Item {row['id']}: its {name} is {row[name]!r}, by the audit {value!r}.")
    opened = state.opened[row["project_id"]]
    surely = [] if opened or item.by_hand else [seq for seq, freed in item.freed.items() if freed]
    if row["again"] not in item.freed.keys() | opened | {0} or row["again"] < max(surely, default=0):
        state.wrong(f"Item {row['id']}: its mark {row['again']} is no event that could have opened it again.")

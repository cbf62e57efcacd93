"""One labeler's place in one project: where their line goes on, and what they are handed from it.

A claim looks forward only: first at items that were freed again (`reopened`), then along the line (`position`), from where
this labeler's cursors stand. What lies behind a cursor was answered, skipped or not allowed when it was passed; if that
changes, the item gets a new `reopened` or the cursors go back to the start. So a claim costs the same in a project of a
thousand items and of a million (F5).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Text, and_, bindparam, cast, func, insert, literal_column, or_, select, update

from harken.store.events import stamp
from harken.store.prepared import Joined, Prepared, Writes
from harken.store.schema import prompts
from harken.store.studio_schema import assignments, exposures, items, members, projects
from harken.studio.work.forms import default_form, shown_answer
from harken.studio.work.leases import COUNT, count, counters, set_assignment, until
from harken.studio.work.members import expose, membership
from harken.studio.work.settings import CATEGORIES, Settings
from harken.web.accounts import User
from harken.web.errors import not_found


def _answered(mine: Any, of: Any = items) -> Any:
    """Whether the labeler has had an item, by the rows of `mine`: one look at an index. A scalar subquery, as PostgreSQL makes
    an anti-join of EXISTS and reads all that the labeler ever answered for each claim."""
    look: Any = (select(literal_column("1")).select_from(mine)
                 .where(mine.c.item_id == of.c.id, mine.c.user_id == bindparam("user"), mine.c.state != "expired").limit(1))
    return look.correlate(of).scalar_subquery().is_not(None)


_passed = _answered(assignments)
_columns = (*items.c, prompts.c.body.label("prompt"))
with_prompt = select(*_columns).select_from(items.outerjoin(prompts, items.c.prompt_key == prompts.c.key))


_comma: Any = literal_column("','", Text)


def _for(user: Any, of: Any = items) -> Any:
    """Whether an item is for everybody, or for this user."""
    return or_(of.c.assigned.is_(None), of.c.assigned.contains(_comma + cast(user, Text) + _comma))


_mine = _for(bindparam("user"))


def _along(order: Any, *conditions: Any) -> Prepared:
    return Prepared(with_prompt.where(items.c.project_id == bindparam("project"), items.c.role == "task", items.c.free > 0,
                                      ~_passed, _mine, order > bindparam("after"), *conditions).order_by(order).limit(1))


_allowed = or_(items.c.warnings.is_(None), and_(*[
    or_(~bindparam(f"no_{c}"), ~items.c.warnings.contains(c, autoescape=True))
    for c in CATEGORIES]))
_reopened = {plain: _along(items.c.reopened, items.c.reopened > 0, *(() if plain else (_allowed,))) for plain in (True, False)}
_line = {plain: _along(items.c.position, *(() if plain else (_allowed,))) for plain in (True, False)}
_free = (items.c.project_id == bindparam("project"), items.c.role == "task", items.c.free > 0)
_last_in_line = select(func.max(items.c.position)).where(*_free, items.c.position > bindparam("after"))
_held = assignments.alias("held")
_theirs = assignments.alias("theirs")
_others_hold = (select(_theirs.c.id).join(items, items.c.id == _theirs.c.item_id)
                .where(_theirs.c.project_id == bindparam("project"), _theirs.c.state == literal_column("'leased'"),
                       _theirs.c.user_id != bindparam("user"), _theirs.c.turn == 0, items.c.role == "task",
                       items.c.state == "open", ~_passed, _mine).limit(1))
HELD = (select(func.aggregate_strings(cast(_held.c.id, Text), literal_column("','")))  # type: ignore[arg-type]
        .where(_held.c.user_id == bindparam("user"), _held.c.project_id == projects.c.id, _held.c.state == "leased")
        .correlate(projects).scalar_subquery())
"""The ids of the tasks that the caller holds in a project, as one text: a claim seldom needs more of them."""
MANY = 100
_zero: Any = literal_column("0")  # no parameter, so that the partial index on free places is used
_looks = assignments.alias("looks")  # not the table itself: the query around may be about one of its rows
_seen = _answered(_looks)
_at, _back = func.coalesce(members.c.cursor, 0), func.coalesce(members.c.reopened_cursor, 0)


def _some(*conditions: Any) -> Any:
    """How many items with a free place there are under these conditions, up to MANY."""
    few = (select(literal_column("1").label("one")).select_from(items)
           .where(items.c.project_id == projects.c.id, items.c.role == literal_column("'task'"), items.c.free > _zero,
                  _mine, *conditions)
           .limit(literal_column(str(MANY))).correlate(projects, members).subquery())
    return select(func.count()).select_from(few).scalar_subquery()


AHEAD = _some(items.c.position > _at) + _some(items.c.reopened > _zero, items.c.reopened > _back, items.c.position <= _at,
                                              ~_seen)
"""How many items are still to come for a labeler: along the line, and freed again behind their cursor. Two looks at indexes, in
the query that reads the place."""
_open = items.alias("open")
_had = assignments.alias("had")
_upcoming = items.alias("upcoming")
_asked = prompts.alias("asked")
UPCOMING = [*_upcoming.c, _asked.c.body.label("prompt")]
"""The next item of a labeler's line, beside their place: what a claim finds there, in the query that reads the place."""


def with_upcoming(source: Any) -> Any:
    """`source` (with projects and members) joined with UPCOMING."""
    following = (select(_open.c.id).where(
        _open.c.project_id == projects.c.id, _open.c.role == "task", _open.c.free > 0, ~_answered(_had, _open),
        _for(bindparam("user"), _open), _open.c.position > members.c.cursor)
        .order_by(_open.c.position).limit(literal_column("1")).correlate(projects, members).scalar_subquery())
    return source.outerjoin(_upcoming, _upcoming.c.id == following).outerjoin(_asked, _asked.c.key == _upcoming.c.prompt_key)


_mine_there = and_(members.c.project_id == projects.c.id, members.c.user_id == bindparam("user"))
_member_fields = ("state", "cursor", "reopened_cursor", "repeat_cursor", "limited", "served", "done", "day", "today", "score")
PLACE = ([projects.c[f] for f in ("id", "kind", "status", "settings", "form_version", "instruction_hash", "seed", "items_total",
                                  "items_done", "reopened")], [members.c[f] for f in _member_fields])
"""What a claim must know of the project, and of the labeler in it."""
_place = Joined(PLACE, lambda s: s.select_from(projects.outerjoin(members, _mine_there))
                .where(projects.c.id == bindparam("project")), HELD, AHEAD)
_insert = Prepared(insert(assignments).values({c.name: bindparam(c.name) for c in assignments.c if c.name != "id"})
                   .returning(assignments.c.id))
_before = Prepared(
    select(assignments).where(assignments.c.item_id == bindparam("item"), assignments.c.user_id == bindparam("user"),
                              assignments.c.turn == 0))
_update_member = Prepared(
    update(members).where(members.c.project_id == bindparam("project"), members.c.user_id == bindparam("user"))
    .values({f: bindparam(f"new_{f}") for f in _member_fields}))


class Line:
    """One labeler's place in one project, changed in memory while claiming and written once.

    `upcoming` are the items that were found ahead along the line (one, or none) where the place was read with them."""

    def __init__(self, tx: Connection, user: User, project: Any, member: Any, held: str | None, ahead: int,
                 now: datetime, upcoming: Sequence[Any] | None = None) -> None:
        self._writes, self.user, self.now = Writes(tx), user, now
        self.project, self.settings, self.held = project, Settings.from_json(project.settings), _ids(held)
        self.ahead = ahead
        self.at: dict[str, Any] = {f: getattr(member, f) for f in _member_fields}
        self._written = dict(self.at)
        self._upcoming = None if upcoming is None else (self.at["cursor"], upcoming)
        day = stamp(now)[:10]
        if self.at["day"] != day:
            self.at.update(day=day, today=0)
            if self.at["limited"]:
                self.at.update(cursor=0, reopened_cursor=0, limited=False)

    @property
    def tx(self) -> Connection:
        """The transaction, with all that waited carried out."""
        self._writes.send()
        return self._writes.tx

    def later(self, statement: Prepared, values: dict[str, Any]) -> None:
        """A change that may wait for others, until somebody reads (`tx`) or saves."""
        self._writes.add(statement, values)

    def send(self, statement: Prepared, values: dict[str, Any]) -> Any:
        """Carries out what waits and this; returns its RETURNING value."""
        return self._writes.send(statement, values)

    @classmethod
    def enter(cls, tx: Connection, project: int, user: User, now: datetime) -> Line:
        """As the database has it; who may work here and has no place yet gets one."""
        place = _place.first(tx, project=project, user=user.id)
        if place is None:
            raise not_found("project")
        row, member, held, ahead = place
        if member is None:
            member = membership(tx, row, user, Settings.from_json(row.settings), now)
        return cls(tx, user, row, member, held, ahead, now)

    def refresh(self) -> None:
        """Reads the project again: leases were taken back."""
        self.project, _, held, self.ahead = _place.first(self.tx, project=self.project.id, user=self.user.id)
        self.held, self._upcoming = _ids(held), None

    def tally(self, by: int) -> None:
        """The labeler's answers, in all and today."""
        self.at.update(done=self.at["done"] + by, today=max(0, self.at["today"] + by))

    def moved(self, changed: Mapping[str, int]) -> None:
        """Takes over what `count` changed in the project."""
        done = self.project.items_done + changed.get("items_done", 0)
        self.project = self.project._replace(items_done=done, reopened=changed.get("reopened", self.project.reopened))

    @property
    def open_for_me(self) -> int:
        """How many tasks this labeler has still to answer, those in hand included. Beyond MANY it is the project's count."""
        ahead = self.ahead if self.ahead < MANY else max(MANY, self.project.items_total - self.project.items_done)
        return ahead + len(self.held)

    def others_hold(self) -> bool:
        """Whether somebody else holds an open item that this labeler might still be given."""
        return self.tx.execute(_others_hold, {"project": self.project.id, "user": self.user.id}).first() is not None

    def save(self) -> None:
        if self.at != self._written:
            self.later(_update_member, self._row())
        self._writes.send()

    def _row(self) -> dict[str, Any]:
        self._written = dict(self.at)
        return {"project": self.project.id, "user": self.user.id, **{f"new_{f}": v for f, v in self.at.items()}}

    def barred(self) -> set[str]:
        """Content that this labeler does not want to see, or has seen enough of today."""
        limit = self.settings.exposure_limit
        seen: set[str] = set()
        if limit is not None:
            query = select(exposures.c.category).where(exposures.c.user_id == self.user.id, exposures.c.count >= limit,
                                                       exposures.c.day == self.at["day"])
            seen = set(self.tx.scalars(query))
        return seen | set(self.user.hidden)

    def draw(self) -> float:
        """A number in [0, 1) that depends on the project's seed, the labeler and how many tasks were given."""
        words = f"{self.project.seed}:{self.user.id}:{self.at['served']}".encode()
        return float(int.from_bytes(hashlib.blake2b(words, digest_size=8).digest()) / 2**64)

    def claim(self) -> dict[str, Any] | None:
        """One more task, or None where nothing is left for this labeler now."""
        if self.at["state"] == "screening":
            return self._with_answer("qualify")
        share = self.draw()
        special = None
        if share < self.settings.gold_rate:
            special = self._with_answer("gold")
        elif share < self.settings.gold_rate + self.settings.repeat_rate:
            special = self._repeat()
        return special or self._task()

    def _task(self) -> dict[str, Any] | None:
        barred: set[str] | None = None  # looked up when the first item with a warning turns up: most have none
        for cursor, statements in (("reopened_cursor", _reopened), ("cursor", _line)):
            if cursor == "reopened_cursor" and self.project.reopened <= self.at[cursor]:
                continue
            item = self._first(statements[not barred], self.at[cursor], barred)
            if item is not None and item.warnings and barred is None:
                barred = self.barred()
                item = self._first(statements[not barred], self.at[cursor], barred)
            if item is not None:
                self.at[cursor] = item.reopened if cursor == "reopened_cursor" else item.position
                return self._lease(item, 0, takes=True)
            self.at[cursor] = self.project.reopened if cursor == "reopened_cursor" else self._end()
        if barred and barred - set(self.user.hidden):
            self.at["limited"] = True
        return None

    def _end(self) -> int:
        """Where the line ends for this labeler: its last free place, or where they stand."""
        last = self.tx.execute(_last_in_line, {"project": self.project.id, "after": self.at["cursor"]}).scalar()
        return int(last or self.at["cursor"])

    def _first(self, statement: Prepared, after: int, barred: set[str] | None) -> Row[Any] | None:
        if statement is _line[True] and self._upcoming is not None and self._upcoming[0] == after:
            return next(iter(self._upcoming[1]), None)
        values = {"project": self.project.id, "user": self.user.id, "after": after}
        if barred:
            values |= {f"no_{c}": c in barred for c in CATEGORIES}
        item: Row[Any] | None = statement.first(self.tx, **values)
        return item

    def _with_answer(self, role: str) -> dict[str, Any] | None:
        """The next gold or qualifying item that the labeler has not seen: in an order of their own."""
        query = with_prompt.where(items.c.project_id == self.project.id, items.c.role == role, items.c.state == "open",
                                   ~_passed).order_by(items.c.position)
        left = self.tx.execute(query, {"user": self.user.id}).fetchall()
        return self._lease(left[0] if role == "qualify" else left[int(self.draw() * 1e6) % len(left)], 0) if left else None

    def _repeat(self) -> dict[str, Any] | None:
        """The earliest answer not repeated yet, once it is old enough; every other one mirrored."""
        before = stamp(self.now.fromtimestamp(self.now.timestamp() - 60 * self.settings.repeat_minutes, self.now.tzinfo))
        query = (select(assignments).join(items, assignments.c.item_id == items.c.id)
                 .where(assignments.c.user_id == self.user.id, assignments.c.project_id == self.project.id,
                        assignments.c.state == "submitted", assignments.c.turn == 0, assignments.c.claimed_at <= before,
                        assignments.c.id > self.at["repeat_cursor"], items.c.role == "task").order_by(assignments.c.id).limit(1))
        first = self.tx.execute(query).first()
        if first is None:
            return None
        self.at["repeat_cursor"] = first.id
        item = self.tx.execute(with_prompt.where(items.c.id == first.item_id)).first()
        order = first.shown_order
        return self._lease(item, 1, order[::-1] if self.settings.mirror and first.id % 2 else order)

    def _lease(self, item: Any, turn: int, order: Sequence[int] | None = None, takes: bool = False) -> dict[str, Any]:
        """Hands an item out; `takes` one of its places."""
        self.at["served"] += 1
        self._upcoming = None
        values = {"state": "leased", "expires_at": until(self.settings, self.now)}
        came_back = turn == 0 and (item.reopened > 0 or item.role != "task")
        earlier = _before.first(self.tx, item=item.id, user=self.user.id) if came_back else None
        if earlier is not None:  # it ran out before; the same task in the same order
            if takes:
                count(self.tx, item, held=1)
            set_assignment(self.tx, earlier.id, state="leased")
            set_assignment(self.tx, earlier.id, expires_at=values["expires_at"])
            return task_json(self.project, {**earlier._asdict(), **values}, item)
        seed, shown = shuffled(self.project.seed, item.id, self.user.id, turn, len(item.body["completions"]))
        row = {"item_id": item.id, "user_id": self.user.id, "project_id": self.project.id, "turn": turn, "counted": False,
               "order_seed": seed, "shown_order": shown if order is None else list(order), "claimed_at": stamp(self.now),
               "draft": None, "draft_version": 0, "judgment_seq": None, **values}
        if takes:  # a place is taken from an open item: the project's own counters stay
            self.later(COUNT, counters(item, held=1)[0])
        self.later(_update_member, self._row())
        key = self.send(_insert, row)
        if item.warnings:
            expose(self.tx, self.user.id, self.at["day"], item.warnings.split(","))
        return task_json(self.project, {"id": key, **row}, item)


def shuffled(seed: int, item: int, user: int, turn: int, k: int) -> tuple[int, list[int]]:
    """The order in which `user` sees the k completions of `item`, and the seed that makes it (F7)."""
    words = f"{seed}:{item}:{user}:{turn}".encode()
    own = int.from_bytes(hashlib.blake2b(words, digest_size=7).digest())
    order = list(range(k))
    random.Random(own).shuffle(order)
    return own, order


def _ids(held: str | None) -> set[int]:
    return set(map(int, held.split(","))) if held else set()


def suggested_first(project: Row[Any], item: int, user: int) -> bool:
    """Whether a labeler sees an item's suggestion before they answer; else after, by chance (`suggestions_after`)."""
    words = f"{project.seed}:{item}:{user}:suggestion".encode()
    share = float(int.from_bytes(hashlib.blake2b(words, digest_size=8).digest()) / 2**64)
    return share >= Settings.from_json(project.settings).suggestions_after


def suggestion_of(item: Any, order: Sequence[int]) -> dict[str, Any] | None:
    """A model's answer to an item as a labeler would have given it, in the shown order; which model it was stays hidden."""
    suggestion = item.body.get("suggestion")
    if suggestion is None:
        return None
    shown = shown_answer(item.kind, suggestion["payload"], order)
    return {"answer": {k: v for k, v in shown.items() if k != "spans"}}


def task_json(project: Row[Any], lease: Any, item: Any) -> dict[str, Any]:
    """What a labeler sees. No source, no gold, nobody else's answer: only what is named here leaves the server (F6, F8)."""
    body = item.body
    texts = [c["text"] for c in body["completions"]]
    prompt = None
    if item.prompt is not None:
        words = item.prompt["prompt"]
        prompt = {"messages": [{"role": "user", "content": words}] if isinstance(words, str) else words,
                  "use_case": item.prompt.get("use_case"), "kind": item.prompt.get("kind", "plain")}
    return {"assignment": lease["id"], "item": item.id, "project": project.id, "kind": item.kind,
            "stage": "qualify" if item.role == "qualify" else "task",
            "form_version": project.form_version if item.kind == project.kind else default_form(item.kind)["version"],
            "instruction_hash": project.instruction_hash, "prompt": prompt,
            "completions": [texts[i] for i in lease["shown_order"]], "ask": body.get("ask"),
            "suggestion": suggestion_of(item, lease["shown_order"]) if body.get("suggestion") and suggested_first(
                project, item.id, lease["user_id"]) else None,
            "warnings": item.warnings.split(",") if item.warnings else [], "claimed_at": lease["claimed_at"],
            "expires_at": lease["expires_at"], "draft": lease["draft"], "draft_version": lease["draft_version"]}

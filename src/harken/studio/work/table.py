"""A lead's table: items and answers of a project, searched, filtered, sorted, a page at a time.

    found = find_items(tx, project, {"q": "beans", "labeler": "ana", "state": "open"}, sort="-skips", page=2)
    found.rows, found.total

A project of 100,000 items is searched by an index of words (`store.migration_5`); words of scripts that put no spaces between
them, and answers, are looked for text by text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Text, cast, func, literal_column, or_, select, text

from harken.store.events import stamp
from harken.store.names import name_key
from harken.store.schema import judgments, prompts
from harken.store.studio_schema import assignments, comments, events, grades, item_texts, items, retractions, reviews, users
from harken.web.errors import ApiError

SHOWN = 100
"""Rows of a page."""
MOST_PICKED = 5000
"""Numbers of items that a list behind a figure names at most."""
Query = Mapping[str, Any]
SORTS = {"id": items.c.id, "done": items.c.done, "skips": items.c.skips, "flags": items.c.flags, "position": items.c.position}
ANSWER_STATES = {
    "counts": "Counts",
    "open": "Not looked at",
    "accepted": "Accepted",
    "set_aside": "Set aside",
    "undone": "Undone",
    "withdrawn": "Withdrawn",
    "apart": "Gold, repeats, tests",
}


@dataclass(frozen=True)
class Page:
    """Rows of one page, and how many there are in all."""

    rows: Sequence[Any]
    total: int


def find_items(tx: Connection, project: int, query: Query, *, sort: str = "id", page: int = 1,
               picked: Sequence[int] | None = None) -> Page:
    """Items with `asked`, their prompt. `picked` names those that a list behind a figure holds, the first first."""
    where = _item_conditions(tx, project, query)
    if picked is not None:
        where.append(items.c.id.in_(list(picked)[:MOST_PICKED]))
    name, down, shown = sort.removeprefix("-"), sort.startswith("-"), slice((page - 1) * SHOWN, page * SHOWN)
    by = SORTS.get(name, items.c.id)
    order = [by.desc() if down else by, items.c.id.desc() if down else items.c.id]
    if picked is not None and name == "disagreement":
        there = set(tx.scalars(select(items.c.id).where(*where)))
        ids = [i for i in list(picked)[:MOST_PICKED] if i in there]
        total, ids = len(ids), ids[shown]
    elif any(query.get(text) for text in ("q", "tag", "source")):  # texts are read once: for the count and for the page
        ids = list(tx.scalars(select(items.c.id).where(*where).order_by(*order)))
        total, ids = len(ids), ids[shown]
    else:
        total = int(tx.execute(select(func.count()).select_from(items).where(*where)).scalar() or 0)
        ids = list(tx.scalars(select(items.c.id).where(*where).order_by(*order).limit(SHOWN).offset(shown.start)))
    asked = select(items, prompts.c.body.label("asked")).outerjoin(prompts, items.c.prompt_key == prompts.c.key)
    rows = {row.id: row for row in tx.execute(asked.where(items.c.id.in_(ids)))}
    return Page([rows[i] for i in ids], total)


def _item_conditions(tx: Connection, project: int, query: Query) -> list[Any]:
    c = items.c
    where: list[Any] = [c.project_id == project]
    if words := query.get("q"):
        where.append(_with_words(tx, project, words))
    if state := query.get("state"):
        where.append(c.flags > 0 if state == "flagged" else c.done > 0 if state == "answered" else c.state == state)
    if role := query.get("role"):
        where.append(c.role != "task" if role == "known" else c.role == role)
    for name, column in (("tag", item_texts.c.tags), ("source", item_texts.c.sources)):
        if value := query.get(name):
            held = column.contains(f"\n{value}\n", autoescape=True)
            where.append(c.id.in_(select(item_texts.c.item_id).where(item_texts.c.project_id == project, held)))
    for name in query.get("labelers") or ([query["labeler"]] if query.get("labeler") else []):
        own = judgments.c.labeler.in_(_spelled(tx, name)), judgments.c.seq.not_in(select(retractions.c.judgment_seq))
        where.append(c.id.in_(select(judgments.c.item_id).where(judgments.c.item_id.is_not(None), *own)))
    if person := query.get("assigned"):
        where.append(c.assigned.contains(f",{person},", autoescape=True))
    if query.get("from") or query.get("to"):
        e = events.c
        within = e.project_id == project, e.kind == "submit", e.created_at >= _moment(query, "from", ""), \
            e.created_at < _moment(query, "to", "9")
        where.append(c.id.in_(select(e.item_id).where(*within)))
    if kind := query.get("list"):
        where += _lists(kind)
    return where


def _moment(query: Query, name: str, missing: str) -> str:
    """A filter's date or time (UTC where it names no zone) as moments are stored; `missing` where it is not given."""
    if not query.get(name):
        return missing
    try:
        at = datetime.fromisoformat(query[name])
        return stamp(at if at.tzinfo else at.replace(tzinfo=UTC))
    except (ValueError, OverflowError):  # the second: its zone takes it out of the calendar
        raise ApiError("bad_request", f'"{name}" is {query[name]!r}, which is no date.',
                       "Write 2026-01-31, or a time in ISO 8601.") from None


def _lists(kind: str) -> list[Any]:
    """Items that a word of the page's names."""
    c = items.c
    if kind == "ungraded":
        ungraded = (judgments.c.role == "qualify", judgments.c.kind == "demonstration",
                    judgments.c.seq.not_in(select(grades.c.judgment_seq)))
        return [c.id.in_(select(judgments.c.item_id).where(*ungraded))]
    if kind == "repeated":
        return [c.id.in_(select(judgments.c.item_id).where(judgments.c.role == "repeat"))]
    if kind == "commented":
        return [c.id.in_(select(comments.c.item_id))]
    if kind == "decided":
        return [c.id.in_(select(events.c.item_id).where(events.c.kind == "adjudicate"))]
    return []


UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]")
"""Scripts without spaces between words (Thai, Lao, Burmese, Khmer, Japanese, Chinese), and Korean, whose words end in others."""
MOST_WORDS = 20


def _with_words(tx: Connection, project: int, words: str) -> Any:
    """Whether an item's prompt or a completion holds the words, in any case, each from its beginning; "#17" is item 17."""
    if words[:1] == "#" and words[1:].isdigit() and len(words) < 17:
        return items.c.id == int(words[1:])
    folded = words.casefold()
    held = item_texts.c.words.contains(folded, autoescape=True)
    tokens = re.findall(r"[^\W_]+", folded)[:MOST_WORDS]
    if not tokens or UNSPACED.search(folded) or not _indexed(tx):
        return items.c.id.in_(select(item_texts.c.item_id).where(item_texts.c.project_id == project, held))
    if tx.dialect.name == "sqlite":
        match = " AND ".join(f'"{token}"' for token in tokens) + " *"
        rows = text("SELECT rowid FROM item_search WHERE item_search MATCH :match").bindparams(match=match)
        found: Any = rows.columns(rowid=items.c.id.type).scalar_subquery()
    else:
        vector = func.to_tsvector(literal_column("'simple'"), func.left(item_texts.c.words, literal_column("100000")))
        match = " & ".join(tokens) + ":*"
        matches = vector.op("@@")(func.to_tsquery(literal_column("'simple'"), match))
        found = select(item_texts.c.item_id).where(matches, *([] if tokens == [folded] else [held]))  # in one scan, by the index
        return items.c.id.in_(found)
    if tokens == [folded]:
        return items.c.id.in_(found)
    return items.c.id.in_(select(item_texts.c.item_id).where(item_texts.c.item_id.in_(found), held))


def _indexed(tx: Connection) -> bool:
    if tx.dialect.name != "sqlite":
        return True
    return tx.execute(text("SELECT 1 FROM sqlite_master WHERE name = 'item_search'")).first() is not None


def find_answers(tx: Connection, project: int, query: Query, *, sort: str = "-id", page: int = 1) -> Page:
    """Answers, with `reason` where they count no more, `accepted` where a lead said so, and `asked`, the prompt."""
    j = judgments.c
    where = _answer_conditions(tx, project, query)
    joined = (judgments.join(items, items.c.id == j.item_id).outerjoin(retractions, retractions.c.judgment_seq == j.seq)
              .outerjoin(reviews, reviews.c.judgment_seq == j.seq))
    total = int(tx.execute(select(func.count()).select_from(joined).where(*where)).scalar() or 0)
    by = j.seconds if sort.removeprefix("-") == "seconds" else j.labeler if sort.removeprefix("-") == "labeler" else j.seq
    down = sort.startswith("-")
    order = [by.desc() if down else by, j.seq.desc() if down else j.seq]
    seqs = list(tx.scalars(select(j.seq).select_from(joined).where(*where).order_by(*order).limit(SHOWN)
                           .offset((page - 1) * SHOWN)))
    whole = (select(judgments, retractions.c.reason, reviews.c.created_at.label("accepted"), items.c.kind.label("task"),
                    items.c.body, prompts.c.body.label("asked"), assignments.c.id.label("assignment"))
             .select_from(joined.outerjoin(prompts, items.c.prompt_key == prompts.c.key)
                          .outerjoin(assignments, assignments.c.judgment_seq == j.seq)).where(j.seq.in_(seqs)))
    rows = {row.seq: row for row in tx.execute(whole)}
    return Page([rows[s] for s in seqs], total)


def _spelled(tx: Connection, name: str) -> list[str]:
    """A labeler's name as written, and as the account has it that a login with it finds."""
    account = tx.execute(select(users.c.name).where(users.c.name_key == name_key(name))).scalar()
    return sorted({name} | ({account} if account is not None else set()))


def _answer_conditions(tx: Connection, project: int, query: Query) -> list[Any]:
    j, gone = judgments.c, retractions.c.reason
    where: list[Any] = [items.c.project_id == project]
    if name := query.get("labeler"):
        where.append(j.labeler.in_(_spelled(tx, name)))
    if state := query.get("state"):
        live = gone.is_(None) & j.role.is_(None)
        where.append(
            {
                "counts": live,
                "open": live & reviews.c.judgment_seq.is_(None),
                "accepted": live & reviews.c.judgment_seq.is_not(None),
                "set_aside": gone == "set_aside",
                "undone": gone == "undo",
                "withdrawn": gone == "withdrawal",
                "apart": j.role.is_not(None),
            }[state]
        )
    if query.get("from"):
        where.append(j.created_at >= _moment(query, "from", ""))
    if query.get("to"):
        where.append(j.created_at < _moment(query, "to", ""))
    if source := query.get("source"):
        where.append(j.item_id.in_(select(item_texts.c.item_id).where(
            item_texts.c.project_id == project, item_texts.c.sources.contains(f"\n{source}\n", autoescape=True))))
    if item := query.get("item"):
        where.append(j.item_id == item)
    where += [holds(j.payload, word) for word in query.get("q", "").split()[:MOST_WORDS]]
    return where


def holds(column: Any, word: str) -> Any:
    """Whether stored JSON holds a word, in the cases that people write; JSON text escapes what is not ASCII."""
    wanted = {json.dumps(form)[1:-1] for form in (word, word.lower(), word.upper(), word.capitalize())}
    return or_(*[cast(column, Text).contains(form, autoescape=True) for form in sorted(wanted)])


def choices(tx: Connection, project: int) -> dict[str, list[str]]:
    """What the filters offer: labelers who answered, tags and sources of items, the first 200 of each."""
    people = select(judgments.c.labeler).join(items, items.c.id == judgments.c.item_id).where(items.c.project_id == project)
    found = {"labelers": sorted(n for n in tx.scalars(people.distinct().limit(200)) if n)}
    for name, column in (("tags", item_texts.c.tags), ("sources", item_texts.c.sources)):
        lists = tx.scalars(select(column).where(item_texts.c.project_id == project, column != "").distinct().limit(1000))
        found[name] = sorted({value for line in lists for value in line.split("\n") if value})[:200]
    return found

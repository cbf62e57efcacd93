"""The feedback database: everything people said, in the order it arrived, never changed.

    db = open_database("feedback.db")
    db.import_file("pairs.jsonl")
    for choice in db.comparisons(): ...

SQLite (a file) by default, PostgreSQL by `postgresql://` address.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Table, and_, exists, func, insert, or_, select

from harken.core.errors import UserError
from harken.core.records import Choice, Completion, Demonstration, Judgment, Prompt, content_hash, repeats
from harken.store import audit_notes, backup, migrations, serve_schema  # noqa: F401  its tables are part of the database
from harken.store.connection import Link
from harken.store.files import Reader, file_hash
from harken.store.remote import fetched, is_address
from harken.store.rows import Row, judgment_of, judgment_row, prompt_row
from harken.store.schema import completions, imports, judgments, prompts
from harken.store.shapes import Kind, kind_of
from harken.store.studio_schema import items, projects, retractions, reviews

STANDS = and_(judgments.c.role.is_(None), ~exists().where(retractions.c.judgment_seq == judgments.c.seq))
"""A judgment that fills a place of its item: of a task, and not taken back."""
_aside = items.alias("aside")
COUNTS = and_(STANDS, ~exists().where(_aside.c.id == judgments.c.item_id, _aside.c.state == "set_aside"))
"""A judgment that exports, snapshots and figures use: it stands, and its item is not set aside."""
_written = exists().where(judgments.c.prompt_key == prompts.c.key, judgments.c.kind == "prompt").correlate(prompts)
TAKEN_BACK = and_(_written, ~exists().where(judgments.c.prompt_key == prompts.c.key, COUNTS).correlate(prompts))
BATCH = 400
PAGE = 1000


Change = Callable[[Judgment], Judgment]


def unchanged(judgment: Judgment) -> Judgment:
    return judgment


@dataclass(frozen=True)
class Added:
    """How many records were stored, and how many were there already."""

    added: int
    already: int


@dataclass(frozen=True)
class ImportResult:
    """What an import did. `before` is when this very file was imported, if it was: then nothing is stored. `repeating`
    counts the file's comparisons in which two completions are the same text, `unread` the rows with a field that was not
    read, by field; `notes` says what else is worth a look, with the number of rows."""

    kind: Kind
    added: int
    already: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    before: str | None = None
    repeating: int = 0
    unread: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Incoming:
    """A file that was read whole and not stored yet."""

    name: str
    digest: str
    kind: Kind
    rows: Sequence[Row]
    prompts: Sequence[Row]
    skipped: Mapping[str, int]
    repeating: int
    unread: Mapping[str, int]
    notes: Mapping[str, int]


def read_import(path: str | Path, kind: Kind | None = None, skip_bad: bool = False, *, join: Sequence[str | Path] = (),
                **options: Any) -> Incoming:
    """Reads a file of feedback; nothing is stored. `join` are files with the answers that a tool's export of feedback is of.
    `options`: those of `Reader`."""
    from harken.store.drawers import read_drawers
    from harken.store.drawers.tools import TOOLS
    any_shape = kind is None and not options.get("adapter") and not options.get("fields")
    if any_shape and (drawers := read_drawers([path, *join])) is not None:
        return _of_drawers([Path(path), *map(Path, join)], drawers)
    if join:
        raise UserError(f"{path} is no export of a tool whose feedback and answers lie apart.",
                        f"Leave --join away; the tools are {', '.join(TOOLS)}.")
    local = fetched(path) if isinstance(path, str) and is_address(path) else Path(path)
    digest = file_hash(local) if local.exists() or "/" not in str(path) else None
    reader = Reader(path, kind, skip_bad=skip_bad, **options)
    records = list(reader.judgments())
    assert reader.kind is not None
    plain = [prompt_row(record, _now()) for record in records if isinstance(record, Prompt)]
    judged = [record for record in records if isinstance(record, Judgment)]
    rows = _imported_rows(judged)
    if digest is None:  # a data set of a hub: what it held is what it is
        digest = content_hash(sorted([*(row["content"] for row in rows), *(row["key"] for row in plain)]))
    repeating = sum(repeats(j.payload["completions"]) for j in judged if "ranks" in j.payload)
    return Incoming(Path(path).name, digest, reader.kind, rows, plain, dict(+reader.skipped), repeating, dict(reader.unread),
                    dict(reader.notes))


def _of_drawers(paths: Sequence[Path], drawers: Any) -> Incoming:
    kinds: Counter[Kind] = Counter(kind_of(j) for j in drawers.judgments)
    digest = content_hash([file_hash(path) for path in paths])
    notes = {f"{n:,} {kind} of {drawers.tool}": n for kind, n in kinds.items()}
    unnamed = sum(j.labeler is None for j in drawers.judgments)
    if unnamed:
        notes["without a known rater: they count as one person"] = unnamed
    most = kinds.most_common(1)[0][0]
    return Incoming(paths[0].name, digest, most, _imported_rows(drawers.judgments), [], drawers.left_out, 0, {}, notes)


class Database:
    """The feedback database. Methods may be called from several threads and processes at once.

    `backup` is the copy that was made because the database had to be brought up to date, if it had to.
    """

    def __init__(self, link: Link) -> None:
        self.link, self.name = link, link.name
        with link.reading() as connection:
            old = migrations.version(connection, self.name) < len(migrations.MIGRATIONS)
        self.backup: Path | None = None
        if old:
            self.backup = backup.before_migration(link)
            with link.writing() as connection:
                migrations.migrate(connection, self.name)

    def close(self) -> None:
        self.link.engine.dispose()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_judgments(self, answers: Sequence[Judgment]) -> Added:
        """Stores answers, all or none. One whose `client_id` is stored already is not stored again;
        a `client_id` that comes back with another answer is refused."""
        rows = [_judgment_row(answer) for answer in answers]
        with self.link.writing() as connection:
            since = audit_notes.here(connection)
            result = _store_judgments(connection, rows)
            audit_notes.note_import(connection, since, None)
            return result

    def add_prompts(self, records: Iterable[Prompt]) -> Added:
        """Stores prompts; equal ones once."""
        rows = [prompt_row(prompt, _now()) for prompt in records]
        with self.link.writing() as connection:
            since = audit_notes.here(connection)
            result = _store_new(connection, prompts, "key", rows)
            audit_notes.note_import(connection, since, None)
            return result

    def add_completions(self, records: Iterable[Completion]) -> Added:
        """Stores completions; equal ones (prompt, text and source) once."""
        rows = [{"id": c.id, "prompt_id": c.prompt_id, "text": c.text, "source": c.source, "created_at": _now()}
                for c in records]
        with self.link.writing() as connection:
            return _store_new(connection, completions, "id", rows)

    def import_file(self, path: str | Path, kind: Kind | None = None, skip_bad: bool = False, **options: Any) -> ImportResult:
        """Imports a file of feedback in one transaction: killed at any moment, it leaves all of it or nothing.

        The same file again stores nothing. So does the same row in another file, as in a longer copy
        of this one: the n-th row with a given content is stored once. A row that stands k times in
        one file is stored k times. The file is read before the database is locked, so that people
        can go on answering meanwhile. `options`: those of `Reader`.
        """
        return self.store(read_import(path, kind, skip_bad, **options))

    def store(self, file: Incoming) -> ImportResult:
        """Stores a file that was read (`read_import`), all of it or nothing."""
        n = len(file.rows) + len(file.prompts)
        with self.link.writing() as connection:
            before = _import_before(connection, file.digest, file.kind)
            if before:
                return ImportResult(file.kind, 0, n, file.skipped, before, file.repeating, file.unread, file.notes)
            since = audit_notes.here(connection)
            entry = {"file_hash": file.digest, "file_name": file.name, "kind": file.kind, "rows": n,
                     "skipped": dict(file.skipped), "created_at": _now()}
            key = connection.execute(insert(imports), entry).inserted_primary_key
            assert key is not None
            asked = _store_new(connection, prompts, "key", file.prompts)
            stored = _store_judgments(connection, file.rows, key[0])
            audit_notes.note_import(connection, since, key[0])
        return ImportResult(file.kind, asked.added + stored.added, asked.already + stored.already, file.skipped,
                            repeating=file.repeating, unread=file.unread, notes=file.notes)

    def judgments(self, where: Sequence[ColumnElement[bool]] = ()) -> Iterator[Judgment]:
        """Every judgment that counts and was stored when the iteration began, in the order of arrival.

        What was undone, withdrawn or set aside does not count, nor do answers to gold questions, qualifying tests and
        repeats, nor those beyond an item's overlap. `where` narrows it further (`in_project`, `for_purpose`).
        """
        return (judgment for judgment, _ in self.answered(where))

    def answered(self, where: Sequence[ColumnElement[bool]] = ()) -> Iterator[tuple[Judgment, RowMapping]]:
        """`judgments`, each with its row: when it came (`created_at`), of which item, and the item's `asked` body."""
        accepted = exists().where(reviews.c.judgment_seq == judgments.c.seq).label("accepted")
        source = (select(judgments, prompts.c.body, items.c.body.label("asked"), accepted)
                  .join(prompts, judgments.c.prompt_key == prompts.c.key).outerjoin(items, judgments.c.item_id == items.c.id))
        return ((judgment_of(row), row) for row in self._pages(judgments, source.where(COUNTS, *where)))

    def comparisons(self, where: Sequence[ColumnElement[bool]] = (), change: Change = unchanged) -> Iterator[Choice]:
        """What the judgments say about preference, in the order of arrival. `change` is applied to each judgment first."""
        return (choice for judgment in self.judgments(where)
                if "ranks" in judgment.payload and (choice := change(judgment).choice()))

    def demonstrations(self, where: Sequence[ColumnElement[bool]] = (), change: Change = unchanged) -> Iterator[Demonstration]:
        """Written and edited answers, in the order of arrival."""
        return (shown for judgment in self.judgments(where)
                if judgment.demonstration() and (shown := change(judgment).demonstration()))

    def answers(self, kind: Kind, where: Sequence[ColumnElement[bool]] = (), change: Change = unchanged) -> Iterator[Judgment]:
        """Ratings (each rated completion is one), thumbs, edits or answered questions, in the order of arrival."""
        for judgment in self.judgments(where):
            if kind == "ratings":
                yield from change(judgment).ratings() if judgment.ratings() else ()
            elif (kind == "thumbs" and judgment.kind == "thumb") or (kind == "edits" and "original" in judgment.payload) or (
                    kind == "questions" and judgment.kind == "questions"):
                yield change(judgment)

    def prompts(self) -> Iterator[Prompt]:
        """Every prompt known, those of judgments included; one for each id, the first that arrived.

        A prompt that a labeler wrote and took back is not known any more."""
        seen: set[str] = set()
        for row in self._pages(prompts, select(prompts).where(~TAKEN_BACK)):
            if row["id"] not in seen:
                seen.add(row["id"])
                yield Prompt.from_json(row["body"])

    def completions(self, prompt_id: str) -> list[Completion]:
        """The completions of one prompt, in the order of arrival."""
        query = select(completions).where(completions.c.prompt_id == prompt_id).order_by(completions.c.seq)
        with self.link.reading() as connection:
            return [Completion(r.prompt_id, r.text, r.source) for r in connection.execute(query)]

    def _pages(self, table: Table, query: Select[Any]) -> Iterator[RowMapping]:
        """Rows by ascending `seq` up to the last one now. Short reads: a slow caller blocks no checkpoint."""
        with self.link.reading() as connection:
            last = connection.execute(select(func.max(table.c.seq))).scalar() or 0
        at = 0
        while at < last:
            page = query.where(table.c.seq > at, table.c.seq <= last).order_by(table.c.seq).limit(PAGE)
            with self.link.reading() as connection:
                rows = connection.execute(page).mappings().all()
            if not rows:
                return
            yield from rows
            at = rows[-1]["seq"]


def in_project(project: int) -> ColumnElement[bool]:
    """Judgments made in one project of the studio."""
    return judgments.c.item_id.in_(select(items.c.id).where(items.c.project_id == project))


def for_purpose(purpose: str) -> ColumnElement[bool]:
    """Judgments made in projects of one purpose, `train` or `eval`; imported ones count as `train`."""
    other = select(items.c.id).join(projects, items.c.project_id == projects.c.id).where(projects.c.purpose != purpose)
    made = or_(judgments.c.item_id.is_(None), judgments.c.item_id.not_in(other))
    return made if purpose == "train" else and_(judgments.c.item_id.is_not(None), made)


def open_database(path_or_url: str | Path, *, create: bool = True, busy_seconds: float = 30.0) -> Database:
    """Opens a feedback database, made or brought up to date where needed.

    `busy_seconds` is how long a write waits for other writers before it gives up with a `UserError`.
    """
    return Database(Link(path_or_url, create=create, busy_seconds=busy_seconds))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _judgment_row(judgment: Judgment) -> Row:
    """The judgment's row, with its prompt's beside it."""
    prompt = prompt_row(judgment.prompt, _now())
    row = judgment_row(prompt["key"], judgment.kind, judgment.payload, labeler=judgment.labeler, group=judgment.group,
                       order=judgment.order, seconds=judgment.seconds, instruction_hash=judgment.instruction_hash,
                       form_version=judgment.form_version, client_id=judgment.client_id)
    return row | {"prompt": prompt}


def _imported_rows(given: Iterable[Judgment]) -> list[Row]:
    times: Counter[str] = Counter()
    rows = []
    for judgment in given:
        row = _judgment_row(judgment)
        times[row["content"]] += 1
        rows.append(row | {"client_id": f"import:{row['content'][:32]}:{times[row['content']]}"})
    return rows


def _store_judgments(connection: Connection, rows: Sequence[Row], import_seq: int | None = None) -> Added:
    _store_new(connection, prompts, "key", [row["prompt"] for row in rows])
    added = 0
    for batch in _batches(rows):
        ids = [row["client_id"] for row in batch if row["client_id"] is not None]
        query = select(judgments.c.client_id, judgments.c.content).where(judgments.c.client_id.in_(ids))
        stored: dict[str, str] = {r.client_id: r.content for r in connection.execute(query)}
        fresh = []
        own = _own_answers(connection, batch)
        for row in batch:
            if _answer_of(row) in own:
                continue
            client_id = row["client_id"]
            if client_id is not None and client_id in stored:
                if stored[client_id] != row["content"]:
                    raise UserError(f"The client id {client_id!r} was used for another answer before.",
                                    "An answer is never changed: send the correction under a new client id.")
                continue
            stored[client_id] = row["content"]
            fresh.append({**row, "import_seq": import_seq, "created_at": _now()})
            del fresh[-1]["prompt"]
        if fresh:
            connection.execute(insert(judgments), fresh)
        added += len(fresh)
    return Added(added, len(rows) - added)


def _answer_of(row: Row) -> tuple[int, str, str] | None:
    """Number, time and labeler of the answer that a row of an export is."""
    told = row["payload"].get("exported") or {}
    number, at, labeler = told.get("judgment"), told.get("answered_at"), row["labeler"]
    return (number, at, labeler) if type(number) is int and isinstance(at, str) and labeler is not None else None


def _own_answers(connection: Connection, batch: Sequence[Row]) -> set[tuple[int, str, str] | None]:
    """The answers among a batch that were given in this very database: an export that comes back doubles nothing."""
    numbers = {answer[0] for row in batch if (answer := _answer_of(row))}
    c = judgments.c
    query = select(c.seq, c.created_at, c.labeler).where(c.seq.in_(numbers), c.import_seq.is_(None))
    return {(row.seq, row.created_at, row.labeler) for row in connection.execute(query)} if numbers else set()


def _store_new(connection: Connection, table: Table, key: str, rows: Sequence[Row]) -> Added:
    """Inserts the rows whose key is neither stored nor met before; the caller holds the write lock."""
    added = 0
    for batch in _batches(rows):
        wanted: dict[str, Row] = {}
        for row in batch:
            wanted.setdefault(row[key], row)
        stored = set(connection.scalars(select(table.c[key]).where(table.c[key].in_(wanted))))
        fresh = [row for k, row in wanted.items() if k not in stored]
        if fresh:
            connection.execute(insert(table), fresh)
        added += len(fresh)
    return Added(added, len(rows) - added)


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    return (rows[i:i + BATCH] for i in range(0, len(rows), BATCH))


def _import_before(connection: Connection, digest: str, kind: Kind) -> str | None:
    query = select(imports.c.created_at).where(imports.c.file_hash == digest, imports.c.kind == kind)
    return connection.scalars(query.order_by(imports.c.seq)).first()

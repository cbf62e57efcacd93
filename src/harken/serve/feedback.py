"""What people say of an answer, as judgments: each new, none changed, each by a rater whom a token names.

    give(tx, key, {"id": "chatcmpl-1", "choice": 0, "token": …, "kind": "thumb", "value": true}, now)

    thumb           value true | false                                       a verdict
    rating          value a number of at least 0, higher is better           a verdict
    edit            value the better text                                    a demonstration, and a pair with the original
    demonstration   value a text written anew                                a demonstration
    preference      value "this" | "other" | "tie", over {id, choice, token} a pair; `order` [0, 1] or [1, 0] as shown
    use             value copy | accept | regenerate | rephrase | abandon    a signal, never a pair; needs `consent`: true; also
                    shown: what a signal that did not come is known from

A null value takes back what was said. A verdict that changes is a new judgment; the old one is retracted and stays stored.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, or_, select

from harken.core.records import JudgmentKind, Prompt, content_hash
from harken.serve.errors import Refused, bad
from harken.serve.tokens import Claim, read
from harken.store import audit_notes, events
from harken.store.events import stamp
from harken.store.rows import judgment_row, prompt_row
from harken.store.schema import judgments, prompts
from harken.store.secrets import secret
from harken.store.serve_schema import feedback, served
from harken.store.studio_schema import retractions

Json = dict[str, Any]
KINDS = ("thumb", "rating", "edit", "demonstration", "preference", "use")
SIGNALS = ("copy", "accept", "regenerate", "rephrase", "abandon", "shown")
FIELDS = {"id", "choice", "token", "kind", "value", "over", "order", "comment", "client_id", "seconds", "finished_reading",
          "consent"}
MOST_CHARS = 100_000
CONSENT = "What I say of answers here is stored with the conversation up to that answer, my name and a code of my network " \
          "address, and used to train and evaluate language models. I can see it and take it back."
_withdrawn = select(retractions.c.judgment_seq).where(retractions.c.judgment_seq == feedback.c.judgment_seq,
                                                      retractions.c.reason == "withdrawal").exists()
_current = ~select(retractions.c.judgment_seq).where(retractions.c.judgment_seq == feedback.c.judgment_seq).exists()


@dataclass(frozen=True)
class Verdict:
    """What was said, ready to store."""

    kind: JudgmentKind
    slot: str
    payload: Json
    order: tuple[int, ...] | None = None


def signing_key(tx: Connection) -> bytes:
    """The server's secret, made at the first start; processes that share the database share it."""
    return secret(tx, "feedback")


def keep(tx: Connection, rows: list[Json], now: datetime, hours: float) -> None:
    """Stores answers that may be judged: id, rater, prompt, text, source."""
    times = {"created_at": stamp(now), "expires_at": stamp(now + timedelta(hours=hours))}
    tx.execute(insert(served), [row | times for row in rows])


def forget(tx: Connection, now: datetime) -> int:
    """Deletes answers that nobody judged in time; returns how many."""
    judged = select(feedback.c.served_id).where(feedback.c.served_id == served.c.id).exists()
    return int(tx.execute(delete(served).where(served.c.expires_at < stamp(now), ~judged)).rowcount)


def give(tx: Connection, key: bytes, said: Any, now: datetime, owner: str | None = None, address: str = "") -> Json:
    """Stores one judgment of an answer, with a code of the `address` it came from. Raises `Refused` for another's answer,
    twice, too late, or a way not allowed; also where an `owner`, who sent a key, is not whom the token names."""
    said = _checked(said)
    claim = _claim(key, said, said["kind"], now)
    if owner is not None and not belongs(claim.rater, owner):
        raise Refused(403, "This token is for another rater.", param="token", code="wrong_rater")
    answer = _answer(tx, claim)
    verdict = None if said["value"] is None else _verdict(tx, key, said, answer, now)
    content = content_hash([verdict.payload, said.get("comment")]) if verdict else None
    if content and (earlier := _sent_before(tx, claim, said, content)) is not None:
        return earlier
    slot = verdict.slot if verdict else _slot(said)
    old = _latest(tx, claim, slot)
    if verdict is None or content is None:
        if old is None:  # taken back before, by a request whose answer was lost: the same answer again
            old = _latest(tx, claim, slot, _withdrawn)
            if old is None:
                raise Refused(409, "There is nothing of yours to take back here.", code="nothing_to_undo")
        else:
            _retract(tx, old, "withdrawal", now)
        return _taken_back(old)
    if old is not None:
        if old.said == content:
            raise Refused(409, "You said this of the answer already.", code="already_given")
        _retract(tx, old, "replaced", now)
    number = _store(tx, claim, said, verdict, answer, content, now, address_code(key, address))
    return {"id": number, "kind": said["kind"], "value": said["value"], "stored": True, "replaces": old.id if old else None}


def withdraw(tx: Connection, key: bytes, number: int, token: object, now: datetime, owner: str | None = None) -> Json:
    """Takes back one judgment, however old: by the answer's token, or by whose it is (`owner`). Twice is as once."""
    row = tx.execute(select(feedback).where(feedback.c.id == number)).first()
    if row is not None:
        claim = read(key, token) if token else None
        mine = claim is not None and (claim.served_id, claim.rater) == (row.served_id, row.rater)
        if mine or (owner is not None and belongs(row.rater, owner)):
            reason = tx.scalar(select(retractions.c.reason).where(retractions.c.judgment_seq == row.judgment_seq))
            if reason is None:
                _retract(tx, row, "withdrawal", now)
            elif reason != "withdrawal":
                raise Refused(409, "It does not count any more: something later stands in its place.", code="nothing_to_undo")
            return _taken_back(row)
    raise Refused(404, "There is no such feedback of yours.", code="not_found")


def listed(tx: Connection, owner: str, after: int, limit: int) -> Json:
    """What an owner (and the users it speaks for) said, newest first; what was taken back is marked."""
    query = select(feedback, judgments.c.payload, retractions.c.reason).join(
        judgments, judgments.c.seq == feedback.c.judgment_seq).outerjoin(
        retractions, retractions.c.judgment_seq == feedback.c.judgment_seq).where(
        or_(feedback.c.rater == owner, feedback.c.rater.startswith(owner + "/", autoescape=True)))
    if after:
        query = query.where(feedback.c.id < after)
    rows = tx.execute(query.order_by(feedback.c.id.desc()).limit(limit + 1)).fetchall()
    items = [{"id": r.id, "answer": r.served_id, "rater": r.rater, "kind": r.kind, "said": _shown(r.payload),
              "created_at": r.created_at, "counts": r.reason is None} for r in rows[:limit]]
    return {"data": items, "next": rows[limit - 1].id if len(rows) > limit else None}


def address_code(key: bytes, address: str) -> str:
    """What stands for a network address: the audit only asks which votes came from one, so the address itself is not kept. Of an
    IPv6 address it is the network of 64 bits: whoever has one has them all. Empty for what is no address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    whole = getattr(found, "ipv4_mapped", None) or found
    network = ipaddress.ip_network((whole, 32 if whole.version == 4 else 64), strict=False)
    return hmac.digest(key, f"address {network}".encode(), hashlib.sha256).hex()[:16]


def belongs(rater: str, owner: str) -> bool:
    """A key speaks for its own name and for its users, NAME/USER."""
    return rater == owner or rater.startswith(owner + "/")


def _shown(payload: Mapping[str, Any]) -> Json:
    return {name: value for name, value in payload.items() if name not in ("served", "address")}


def _checked(said: Any) -> Json:
    if not isinstance(said, dict):
        raise bad("The body must be a JSON object.", None)
    return _checked_fields(_of_tensorzero(said) if "inference_id" in said or "metric_name" in said else said)


def _checked_fields(said: Json) -> Json:
    for name in sorted(said.keys() - FIELDS):
        raise bad(f"Unrecognized request argument: {name[:80]}.", name[:80], "unknown_parameter")
    if said.get("kind") not in KINDS:
        raise bad(f"kind must be one of {', '.join(KINDS)}.", "kind")
    if "value" not in said:
        raise bad("value is missing; null takes back what was said.", "value", "missing_required_parameter")
    if not isinstance(said.get("id"), str) or len(said["id"]) > 100:
        raise bad("id must be the completion's id.", "id")
    choice, seconds = said.setdefault("choice", 0), said.get("seconds")
    if type(choice) is not int or not 0 <= choice < 1000:
        raise bad("choice must be the choice's index.", "choice")
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e6):
        raise bad("seconds must be a number from 0 to 1000000.", "seconds")
    for name, most in (("comment", 10_000), ("client_id", 100)):
        value = said.get(name)
        if value is not None and (not isinstance(value, str) or not 0 < len(value) <= most or not _whole(value)):
            raise bad(f"{name} must be a text of 1 to {most} characters.", name)
    for name in ("finished_reading", "consent"):
        if said.get(name) is not None and not isinstance(said[name], bool):
            raise bad(f"{name} must be true or false.", name)
    return said


def _whole(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _of_tensorzero(said: Mapping[str, Any]) -> Json:
    """TensorZero's shape: `{"inference_id", "metric_name", "value", "tags": {"token", "choice"}}`."""
    for name in sorted(said.keys() - {"inference_id", "metric_name", "value", "tags"}):
        raise bad(f"{name[:80]} is not supported by this server.", name[:80], "unsupported_parameter")
    tags, value = said.get("tags") or {}, said.get("value")
    if not isinstance(tags, dict):
        raise bad("tags must be an object.", "tags", "invalid_type")
    for name in sorted(tags.keys() - {"token", "choice", "client_id", "kind"}):
        raise bad(f"tags.{name[:80]} is not known.", f"tags.{name[:80]}", "unknown_parameter")
    kind = said.get("metric_name")
    if kind == "comment":
        raise bad("A comment stands beside a verdict here: send it as `comment` with a thumb.", "metric_name",
                  "unsupported_parameter")
    if kind != "demonstration":
        kind = "thumb" if isinstance(value, bool) else "rating"
    choice = tags.get("choice", "0")
    found: Json = {"id": said.get("inference_id"), "token": tags.get("token"), "kind": kind, "value": value,
                   "choice": int(choice) if isinstance(choice, str) and choice.isascii() and choice.isdigit() and
                   len(choice) < 4 else choice}
    return found | ({"client_id": tags["client_id"]} if "client_id" in tags else {})


def _claim(key: bytes, said: Mapping[str, Any], kind: str, now: datetime) -> Claim:
    claim = read(key, said.get("token"))
    if (claim.answer, claim.choice) != (said.get("id"), said.get("choice", 0)):
        raise Refused(403, "This token is for another answer.", param="token", code="wrong_answer")
    if kind not in claim.kinds:
        raise Refused(403, f"This token does not allow {kind}; it allows {', '.join(claim.kinds)}.", param="kind",
                      code="kind_not_allowed")
    if now.timestamp() > claim.expires:
        raise Refused(403, "The time for feedback on this answer is over.", param="token", code="expired")
    return claim


def _sent_before(tx: Connection, claim: Claim, said: Mapping[str, Any], content: str) -> Json | None:
    """What was answered when this very message came before (its answer was lost on the way). Raises `Refused` where something
    else came under its client_id."""
    if said.get("client_id") is None:
        return None
    row = tx.execute(select(feedback).where(feedback.c.client_id == said["client_id"])).first()
    if row is None:
        return None
    if (row.served_id, row.rater, row.kind, row.said) != (claim.served_id, claim.rater, said["kind"], content):
        raise Refused(409, "This client_id came with other feedback before.", param="client_id", code="client_id_reused")
    return {"id": row.id, "kind": row.kind, "value": said["value"], "stored": True, "replaces": None, "already": True}


def _answer(tx: Connection, claim: Claim) -> Row[Any]:
    row = tx.execute(select(served).where(served.c.id == claim.served_id)).first()
    if row is None:
        raise Refused(404, "There is no such answer any more.", param="id", code="not_found")
    return row


def _taken_back(row: Row[Any]) -> Json:
    return {"id": row.id, "kind": row.kind, "value": None, "stored": False, "replaces": row.id}


def _latest(tx: Connection, claim: Claim, slot: str, which: ColumnElement[bool] = _current) -> Row[Any] | None:
    query = select(feedback).where(feedback.c.rater == claim.rater, feedback.c.slot == slot, which)
    if not slot.startswith("preference:"):  # a comparison names both answers, whichever was judged against the other
        query = query.where(feedback.c.served_id == claim.served_id)
    return tx.execute(query.order_by(feedback.c.id.desc()).limit(1)).first()


def _slot(said: Mapping[str, Any]) -> str:
    """What a new one replaces: one verdict, one edit, one comparison with each other answer, one of each signal."""
    kind = said["kind"]
    if kind in ("thumb", "rating"):
        return "verdict"
    if kind == "preference":
        over = said.get("over")
        if not isinstance(over, dict) or not isinstance(over.get("id"), str) or type(over.get("choice", 0)) is not int:
            raise bad("over must be the other answer: {id, choice, token}.", "over")
        pair = sorted((f"{said['id']}/{said['choice']}", f"{over['id'][:100]}/{over.get('choice', 0)}"))
        return f"preference:{' '.join(pair)}"
    return f"use:{said['value']}" if kind == "use" else str(kind)


def _verdict(tx: Connection, key: bytes, said: Mapping[str, Any], answer: Row[Any], now: datetime) -> Verdict:
    kind, value, text = said["kind"], said["value"], answer.text
    source = _source(said, answer)
    if kind == "thumb":
        if not isinstance(value, bool):
            raise bad("A thumb's value is true or false.", "value", "invalid_type")
        return Verdict("thumb", "verdict", {"completion": text, "label": value, "served": source})
    if kind == "rating":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e9:
            raise bad("A rating's value is a number of at least 0, higher is better.", "value", "invalid_type")
        return Verdict("rating", "verdict", {"completion": text, "score": value, "served": source})
    if kind == "use":
        if value not in SIGNALS:
            raise bad(f"value must be one of {', '.join(SIGNALS)}.", "value")
        if said.get("consent") is not True:
            raise Refused(403, "Signals of use are stored with consent alone: send consent: true once the person agreed.",
                          param="consent", code="consent_needed")
        return Verdict("use", _slot(said), {"completion": text, "signal": value, "served": source})
    if kind == "preference":
        return _preference(tx, key, said, answer, now)
    if not isinstance(value, str) or not value.strip() or len(value) > MOST_CHARS or not _whole(value):
        raise bad(f"value must be the better text, of at most {MOST_CHARS} characters.", "value", "invalid_type")
    if kind == "demonstration":
        return Verdict("demonstration", kind, {"completion": value, "served": source})
    if value == text:
        raise bad("The text is unchanged: a thumb says that it is good.", "value")
    return Verdict("edit", kind, {"completion": value, "original": text, "completions": [value, text], "ranks": [1, 2],
                                  "served": source})


def _preference(tx: Connection, key: bytes, said: Mapping[str, Any], answer: Row[Any], now: datetime) -> Verdict:
    slot, over, ranks = _slot(said), said["over"], {"this": [1, 2], "other": [2, 1], "tie": [1, 1]}.get(str(said["value"]))
    if ranks is None:
        raise bad("value must be this, other or tie.", "value")
    order = said.get("order")
    if order not in (None, [0, 1], [1, 0]) or any(isinstance(at, bool) for at in order or ()):
        raise bad("order must be [0, 1] where this answer was shown first, else [1, 0].", "order")
    claim = _claim(key, over, "preference", now)
    other = _answer(tx, claim)
    if claim.served_id == answer.id or other.rater != answer.rater:
        raise Refused(403, "The other answer must be another one, to the same rater.", param="over", code="wrong_answer")
    if other.prompt != answer.prompt:
        raise bad("The two answers are to different prompts.", "over")
    payload = {"completions": [answer.text, other.text], "ranks": ranks,
               "served": [_source(said, answer), _source(said, other)]}
    return Verdict("ranking", slot, payload, tuple(order) if order else None)


def _source(said: Mapping[str, Any], answer: Row[Any]) -> Json:
    """Where the answer came from, as the judgment keeps it."""
    given = {name: said[name] for name in ("finished_reading", "consent", "comment") if said.get(name) is not None}
    return {"answer": answer.id, **answer.source, **given}


def _store(tx: Connection, claim: Claim, said: Mapping[str, Any], verdict: Verdict, answer: Row[Any], content: str,
           now: datetime, address: str) -> int:
    since = audit_notes.here(tx)
    asked = prompt_row(Prompt.from_json(answer.prompt), stamp(now))
    if tx.scalar(select(prompts.c.seq).where(prompts.c.key == asked["key"])) is None:
        tx.execute(insert(prompts), asked)
    payload = verdict.payload | ({"address": address} if address else {})
    row = judgment_row(asked["key"], verdict.kind, payload, labeler=claim.rater, order=verdict.order,
                       seconds=said.get("seconds"), form_version=f"serve:{said['kind']}")
    key = tx.execute(insert(judgments), row | {"created_at": stamp(now)}).inserted_primary_key
    assert key is not None
    audit_notes.note_import(tx, since, None)
    number = tx.execute(insert(feedback), {
        "served_id": claim.served_id, "rater": claim.rater, "kind": said["kind"], "slot": verdict.slot, "said": content,
        "judgment_seq": key[0], "client_id": said.get("client_id"), "created_at": stamp(now)}).inserted_primary_key
    assert number is not None
    events.add(tx, "feedback", now, judgment_seq=key[0], body={"rater": claim.rater, "answer": claim.served_id})
    return int(number[0])


def _retract(tx: Connection, row: Row[Any], reason: str, now: datetime) -> None:
    tx.execute(insert(retractions), {"judgment_seq": row.judgment_seq, "reason": reason, "created_at": stamp(now)})
    events.add(tx, "retract", now, judgment_seq=row.judgment_seq, body={"rater": row.rater, "reason": reason})

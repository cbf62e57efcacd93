"""A token that lets one rater judge one answer, in some ways, for some time. Signed with a key that only the server has.

    token = sign(key, Claim("chatcmpl-1", 0, "ada", ("thumb", "edit"), expires=1_900_000_000))
    claim = read(key, token)        # Refused where it was not made here

The token says nothing that its holder may not know, and carries no right to ask the model (nor has a key for asking the
right to judge).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass

from harken.serve.errors import Refused

MOST_CHARS = 2000


@dataclass(frozen=True)
class Claim:
    """`expires` is in seconds of the epoch."""

    answer: str
    choice: int
    rater: str
    kinds: Sequence[str]
    expires: int

    @property
    def served_id(self) -> str:
        return f"{self.answer}/{self.choice}"


def sign(key: bytes, claim: Claim) -> str:
    body = _packed(json.dumps([claim.answer, claim.choice, claim.rater, list(claim.kinds), claim.expires],
                              separators=(",", ":")).encode())
    return f"{body}.{_packed(_mac(key, body))}"


def read(key: bytes, token: object) -> Claim:
    """The claim, which may have expired. Raises `Refused` for what was not signed with this key."""
    if isinstance(token, str) and len(token) <= MOST_CHARS and token.isascii():
        body, _, mac = token.partition(".")
        if hmac.compare_digest(_packed(_mac(key, body)), mac):
            answer, choice, rater, kinds, expires = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
            return Claim(answer, choice, rater, tuple(kinds), expires)
    raise Refused(403, "This feedback token was not made by this server.", param="token", code="bad_token")


def _mac(key: bytes, body: str) -> bytes:
    return hmac.digest(key, body.encode(), hashlib.sha256)


def _packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

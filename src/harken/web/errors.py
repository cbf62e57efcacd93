"""The one shape of everything that goes wrong: `{"error": {"code", "message", "hint"}}`."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from harken.core.errors import UserError
from harken.core.terminal import one_line, visible
from harken.store.connection import RuleError, StorageError

ADDRESS = re.compile(r"\w+(?:\+\w+)?://\S+|/\S+")
"""A database's address or path in a message: the log has it, labelers need not see where the studio keeps its data."""
log = logging.getLogger("harken.studio")
LOG_FRAMES, LOG_CHARACTERS = 12, 4000
"""What one failed request may write to the log: the innermost frames, and characters in all."""

CODES: dict[int, tuple[str, ...]] = {
    400: ("bad_request",), 401: ("login_needed", "bad_login"),
    403: ("forbidden", "csrf", "origin", "host", "proxy_needs_accounts"), 404: ("not_found",), 405: ("method_not_allowed",),
    408: ("too_slow",),
    409: ("conflict", "client_id_reused", "draft_conflict", "nothing_to_undo", "not_yours_now", "already_answered",
          "accounts_exist", "set_password_first"),
    413: ("too_large",), 415: ("not_json",), 422: ("bad_answer",), 429: ("slow_down",), 500: ("internal",),
    503: ("busy", "storage"),
}
STATUS = {code: status for status, codes in CODES.items() for code in codes}


class ApiError(Exception):
    """An answer other than the wanted one. `extra` joins the error object (a draft conflict's `current`)."""

    def __init__(self, code: str, message: str, hint: str = "", *, retry_after: int | None = None,
                 extra: Mapping[str, Any] | None = None) -> None:
        self.status, self.code, self.message, self.hint = STATUS[code], code, message, hint
        self.retry_after, self.extra = retry_after, dict(extra or {})
        super().__init__(message)

    def to_json(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint, **self.extra}}

    @classmethod
    def of(cls, error: UserError, code: str = "bad_request") -> ApiError:
        return cls(code, error.fact, error.action)


def not_found(what: str) -> ApiError:
    """The same words whether it does not exist or is none of the caller's business."""
    return ApiError("not_found", f"There is no such {what}.", "Check the address, or ask the project's lead for access.")


def short_trace(error: Exception) -> str:
    """A traceback for the log: of bounded size, as what a request sends must not fill the disk; codes written out and every
    line indented, as it must not colour the terminal of whoever reads the log, or write a line that looks like the log's own."""
    lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-LOG_FRAMES, chain=False)
    words = "".join(lines)
    words = words if len(words) <= LOG_CHARACTERS else f"{words[:LOG_CHARACTERS // 2]}\n…\n{words[-LOG_CHARACTERS // 2:]}"
    return "\n".join(f"  {line}" for line in visible(words).splitlines())


def as_api_error(error: Exception) -> ApiError:
    """Any failure as what the caller is told; what is our own fault goes to the log with its traceback."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, StorageError):
        log.error("storage: %s", one_line(error.fact))
        fact = ADDRESS.sub("The studio's database", error.fact)
        return ApiError("storage", fact, "Nothing was stored. Your text is still here; try again in a moment.",
                        retry_after=5)
    if isinstance(error, RuleError):
        return ApiError("conflict", "This contradicts what is stored already.", "Reload, and try again.")
    if isinstance(error, UserError):
        return ApiError.of(error)
    if isinstance(error, HTTPException):
        return not_found("page") if error.status_code == 404 else ApiError(
            "method_not_allowed", "This address does not take that method.")
    log.error("a fault in the studio\n%s", short_trace(error))
    return ApiError("internal", "The studio failed at this request. It was not stored.",
                    "Try again; tell the lead if it stays.")

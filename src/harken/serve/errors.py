"""Refusals in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any

TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "invalid_request_error",
         405: "invalid_request_error", 408: "timeout_error", 409: "invalid_request_error", 413: "invalid_request_error",
         415: "invalid_request_error", 429: "rate_limit_error", 500: "server_error", 502: "server_error", 503: "server_error"}


def shown(text: str) -> str:
    """What was sent may hold half a surrogate pair, which cannot be sent back: it is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class Refused(Exception):
    """An answer other than the wanted one; `param` names the field at fault."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None,
                 retry_after: int | None = None) -> None:
        self.status, self.code, self.retry_after = status, code, retry_after
        self.message, self.param = shown(message), None if param is None else shown(param)
        super().__init__(self.message)

    def to_json(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": TYPES[self.status], "param": self.param, "code": self.code}}


def bad(message: str, param: str | None, code: str = "invalid_value") -> Refused:
    return Refused(400, message, param=param, code=code)

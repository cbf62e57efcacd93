"""Answers in OpenAI's shape: whole, or chunk by chunk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harken.serve.backends import Piece, Token
from harken.serve.exchange import Choice, Exchange

Json = dict[str, Any]
LOWEST = -9999.0
"""OpenAI's number for a token that cannot be: JSON has no infinity."""


def _logp(value: float | None) -> float | None:
    return value if value is None or math.isfinite(value) else LOWEST


def chat_logprobs(tokens: Sequence[Token]) -> Json:
    return {"content": [{"token": t.text, "logprob": _logp(t.logp), "bytes": list(t.bytes), "top_logprobs": [
        {"token": text, "bytes": list(raw), "logprob": _logp(p)} for text, raw, p in t.top]} for t in tokens], "refusal": None}


def text_logprobs(tokens: Sequence[Token], offset: int = 0) -> Json:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    tops = [None if t.logp is None else {text: _logp(p) for text, _, p in t.top} for t in tokens]
    return {"tokens": [t.text for t in tokens], "token_logprobs": [_logp(t.logp) for t in tokens], "top_logprobs": tops,
            "text_offset": offsets}


def head(exchange: Exchange, kind: str, fingerprint: str) -> Json:
    return {"id": exchange.id, "object": kind, "created": exchange.created, "model": exchange.model,
            "system_fingerprint": f"fp_{fingerprint}"}


def chat(exchange: Exchange, fingerprint: str) -> Json:
    """chat.completion."""
    def one(index: int, choice: Choice) -> Json:
        message: Json = {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []}
        logged = chat_logprobs(choice.tokens) if choice.part.job.top is not None else None
        return {"index": index, "message": message, "logprobs": logged, "finish_reason": choice.end}
    return head(exchange, "chat.completion", fingerprint) | {
        "choices": [one(i, c) for i, c in enumerate(exchange.choices)], "usage": exchange.usage()}


def text(exchange: Exchange, fingerprint: str) -> Json:
    """text_completion."""
    def one(index: int, choice: Choice) -> Json:
        logged = text_logprobs((*choice.echo, *choice.tokens)) if choice.part.job.top is not None else None
        ids = {"token_ids": choice.ids, "prompt_token_ids": list(choice.prompt_ids)} if choice.part.job.with_ids else {}
        return {"index": index, "text": choice.text, "logprobs": logged, "finish_reason": choice.end, **ids}
    return head(exchange, "text_completion", fingerprint) | {
        "choices": [one(i, c) for i, c in enumerate(exchange.choices)], "usage": exchange.usage()}


class Chunks:
    """What each piece is to the client."""

    def __init__(self, exchange: Exchange, fingerprint: str, usage: bool) -> None:
        self.exchange, self.usage = exchange, usage
        self.chatting = exchange.kind == "chat"
        self.head = head(exchange, "chat.completion.chunk" if self.chatting else "text_completion", fingerprint)
        if usage:
            self.head["usage"] = None
        self._offsets = [0] * len(exchange.choices)

    def opening(self) -> list[Json]:
        """The roles of a chat's choices; a completion's echo."""
        if self.chatting:
            return [self._chunk(i, {"role": "assistant", "content": "", "refusal": None}, None, None)
                    for i in range(len(self.exchange.choices))]
        return [self._chunk(i, c.text, self._logged(i, c.echo), None) for i, c in enumerate(self.exchange.choices) if c.text]

    def piece(self, index: int, piece: Piece) -> list[Json]:
        chunks = []
        if piece.text or piece.tokens or (piece.end and not self.chatting):
            delta = {"content": piece.text} if self.chatting else piece.text
            chunks.append(self._chunk(index, delta, self._logged(index, piece.tokens),
                                      None if self.chatting else piece.end or None))
        if piece.end and self.chatting:
            chunks.append(self._chunk(index, {}, None, piece.end))
        return chunks

    def ending(self) -> list[Json]:
        return [self.head | {"choices": [], "usage": self.exchange.usage()}] if self.usage else []

    def _logged(self, index: int, tokens: Sequence[Token]) -> Json | None:
        if self.exchange.choices[index].part.job.top is None or not tokens:
            return None
        if self.chatting:
            return chat_logprobs(tokens)
        logged = text_logprobs(tokens, self._offsets[index])
        self._offsets[index] += sum(len(t.text) for t in tokens)
        return logged

    def _chunk(self, index: int, said: Any, logged: Json | None, end: str | None) -> Json:
        return self.head | {"choices": [{"index": index, "delta" if self.chatting else "text": said, "logprobs": logged,
                                         "finish_reason": end}]}

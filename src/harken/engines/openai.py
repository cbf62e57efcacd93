"""A model behind an HTTP endpoint of the OpenAI kind (vLLM, llama.cpp, Ollama, hosted ones), as a Sampler. No torch.

    EndpointSampler("http://localhost:8000/v1", "my-model").sample(prompts, 1, max_tokens=8)

It gives text without token ids or log-probs: it can answer and judge, but what it wrote cannot be trained on by policy
gradients. The key is read from $HARKEN_API_KEY or $OPENAI_API_KEY and stored nowhere.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from harken.core.errors import UserError
from harken.core.protocols import Sample
from harken.core.records import Prompt

RETRIES, AGAIN = 4, (408, 409, 429, 500, 502, 503, 504)


class EndpointSampler:
    """`sample` asks for every prompt in parallel; a request that keeps failing raises `UserError`, whose `answered` holds what
    the others gave by place; never an empty text."""

    def __init__(self, url: str, model: str = "", *, parallel: int = 8, seconds: float = 120.0, wait: float = 1.0) -> None:
        self.url = url.rstrip("/")
        self.model, self.parallel, self.seconds, self.wait = model, parallel, seconds, wait
        self.engine = None  # there are no weights here
        self.lineage = {"name": self.url, "endpoint": [self.url, model]}

    def seen(self, prompt: Prompt) -> Prompt:
        """What the model is given."""
        return prompt

    def sample(self, prompts: Sequence[Prompt], n: int, *, max_tokens: int, temperature: float = 1.0, top_p: float = 1.0,
               seed: int = 0, advance: Callable[[int], None] | None = None) -> list[list[Sample]]:
        """`n` completions of each prompt: [P][n]."""
        def ask(i: int) -> list[Sample]:
            body = {"messages": [m.to_json() for m in prompts[i].messages], "max_tokens": max_tokens, "n": n,
                    "temperature": temperature, "top_p": top_p, "seed": (seed + i) % 2**31}
            samples = self._samples(self._post(body | ({"model": self.model} if self.model else {})), n)
            if advance:
                advance(1)
            return samples

        with ThreadPoolExecutor(self.parallel) as pool:
            asked = [pool.submit(ask, i) for i in range(len(prompts))]
            failed = next((f for f in as_completed(asked) if f.exception()), None)
            if failed:
                pool.shutdown(cancel_futures=True)
                error = failed.exception()
                if isinstance(error, UserError):  # what was answered before is not lost
                    error.answered = {i: f.result() for i, f in enumerate(asked) if not f.cancelled() and not f.exception()}
                assert error is not None
                raise error
            return [f.result() for f in asked]

    def _samples(self, answer: Any, n: int) -> list[Sample]:
        try:
            samples = [Sample((), _text(c["message"]), (), (), c.get("finish_reason") != "length") for c in answer["choices"]]
        except (KeyError, TypeError, AttributeError):
            raise UserError(f"{self.url} gave an answer without choices: {str(answer)[:200]}",
                            "Is it an endpoint for chat completions?") from None
        if len(samples) != n:
            raise UserError(f"{self.url} gave {len(samples)} completions where {n} were asked for.", "Ask for one at a time.")
        return samples

    def _post(self, body: dict[str, Any]) -> Any:
        return post(f"{self.url}/chat/completions", body, self.seconds, self.wait)


class NoText(str):
    """A server's null in the place of a text: empty, and no answer."""


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, list):  # a text in parts
        content = "".join(part["text"] for part in content if part.get("type", "text") == "text")
    text = content or message.get("refusal")
    if text and not isinstance(text, str):
        raise TypeError("content is no text")
    return text or ("" if content == "" or message.get("tool_calls") else NoText())


class Unanswered(UserError):
    """A server refused a request (`status`), or did not answer it (0)."""

    def __init__(self, status: int, fact: str, action: str) -> None:
        super().__init__(fact, action)
        self.status = status


def post(url: str, body: dict[str, Any], seconds: float, wait: float) -> Any:
    """The answer's JSON, or its text where it is none. Raises `Unanswered`.

    Failures that pass are tried again, after `wait` seconds, then twice as long; later where the server's Retry-After says so,
    up to a minute.
    """
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **_key()})
    reason, status = "", 0
    for attempt in range(RETRIES + 1):
        asked = 0.0
        try:
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                return _read(reply)
        except urllib.error.HTTPError as error:
            status = error.code
            reason = f"status {error.code}: {error.read(300).decode('utf-8', 'replace').strip()}"
            if error.code not in AGAIN:
                break
            asked = _retry_after(error.headers.get("Retry-After"))
        except (OSError, ValueError, http.client.HTTPException) as error:
            status, reason = 0, str(getattr(error, "reason", None) or error)
        if attempt < RETRIES:
            time.sleep(max(wait * 2**attempt, asked))
    raise Unanswered(status, f"{url.rpartition('/chat/completions')[0] or url} does not answer ({reason}).",
                     "Check the address, the model's name and the key in $HARKEN_API_KEY.")


def _retry_after(said: str | None) -> float:
    """The seconds a server asks to wait, at most 60; 0 where it names none, or a date."""
    return min(float(said), 60.0) if said and said.isascii() and said.strip().isdigit() else 0.0


def get(url: str, seconds: float) -> Any:
    """The answer's JSON. Raises `Unanswered`."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=_key()), timeout=seconds) as reply:
            return _read(reply)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unanswered(getattr(error, "code", 0), f"{url} does not answer ({error}).", "Check the address.") from None


def _key() -> dict[str, str]:
    key = os.environ.get("HARKEN_API_KEY") or os.environ.get("OPENAI_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _read(reply: Any) -> Any:
    raw = reply.read()
    if "json" not in (reply.headers.get("content-type") or "json"):  # vLLM answers a load with a sentence
        return raw.decode("utf-8", "replace")
    return json.loads(raw)

"""Requests in OpenAI's shape, read strictly: what is not supported is refused by name, nothing is silently ignored.

    job = read_chat({"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}]})

A field that asks for nothing (null, an empty list of tools, a penalty of 0) is taken as not given.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harken.core.records import Message, Prompt
from harken.serve.errors import Refused, bad

Json = dict[str, Any]
MOST_CHOICES, MOST_STOPS, MOST_TOPS, MOST_PROMPTS, MOST_STOP, MOST_NAME = 128, 4, 20, 128, 1000, 200
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "tools": ([],), "functions": ([],), "tool_choice": ("none",),
    "function_call": ("none",), "response_format": ({"type": "text"},), "modalities": (["text"],), "store": (False,),
    "metadata": ({},), "service_tier": ("auto", "default"), "suffix": ("",), "prediction": (), "audio": (),
    "reasoning_effort": (), "web_search_options": (), "verbosity": (), "parallel_tool_calls": (), "prompt_cache_key": (),
    "prompt_cache_retention": (), "prompt_cache_options": (), "moderation": (), "top_k": (-1, 0), "min_p": (0,),
    "repetition_penalty": (1,)}
"""Fields of OpenAI's and vLLM's that are not supported, with the values that ask for nothing."""
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Codes, and what is not seen or turns a line round: two raters must not look like one."""
COMMON = {"model", "stream", "stream_options", "n", "stop", "max_tokens", "temperature", "top_p", "seed", "logit_bias", "user",
          "safety_identifier", "logprobs"}


@dataclass(frozen=True)
class Job:
    """One prompt, and how it is to be continued. `messages` or `text` or `ids` is given; `top` is None where no log-probs are
    wanted; `max_tokens` None leaves the length to the server; `with_ids` wants every token's id, the end's included (vLLM's
    return_token_ids)."""

    model: str
    prompt: Prompt | None = None
    text: str = ""
    ids: tuple[int, ...] = ()
    n: int = 1
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    bias: tuple[tuple[int, float], ...] = ()
    top: int | None = None
    echo: bool = False
    with_ids: bool = False
    stream: bool = False
    usage: bool = False
    user: str = ""

    @property
    def settings(self) -> Json:
        """The decoding, as kept with the answer."""
        return {"max_tokens": self.max_tokens, "temperature": self.temperature, "top_p": self.top_p, "seed": self.seed,
                "stop": list(self.stop), "logit_bias": dict(self.bias)}


class Fields:
    """A request's fields, each read once; what is left over is refused."""

    def __init__(self, body: Any, known: set[str]) -> None:
        if not isinstance(body, dict):
            raise bad("The body must be a JSON object.", None)
        self.body: Json = {name: value for name, value in body.items() if value is not None}
        for name in sorted(self.body.keys() - known):
            if name in NEUTRAL:
                value = self.body.pop(name)
                if not any(value == nothing and isinstance(value, bool) == isinstance(nothing, bool)
                           for nothing in NEUTRAL[name]):
                    raise bad(f"{name} is not supported by this server.", name, "unsupported_parameter")
            else:
                raise bad(f"Unrecognized request argument: {name[:80]}.", name[:80], "unknown_parameter")

    def text(self, name: str, default: str | None = None) -> str:
        value = self.body.get(name, default)
        if not isinstance(value, str):
            raise bad(f"{name} must be a string." if name in self.body else f"{name} is missing.", name,
                      "invalid_type" if name in self.body else "missing_required_parameter")
        _unicode(value, name)
        return value

    def flag(self, name: str) -> bool:
        value = self.body.get(name, False)
        if not isinstance(value, bool):
            raise bad(f"{name} must be true or false.", name, "invalid_type")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise bad(f"{name} must be a number.", name, "invalid_type")
        if not low <= value <= high:
            raise bad(f"{name} must be from {low:g} to {high:g}; found {_short(value)}.", name)
        return float(value)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = self.body.get(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise bad(f"{name} must be a whole number.", name, "invalid_type")
        if not low <= value <= high:
            raise bad(f"{name} must be from {low} to {high}; found {_short(value)}.", name)
        return value


def _short(value: float) -> str:
    """A number as it was sent, as long as it is short: JSON's may have thousands of digits."""
    text = str(value)
    return text if len(text) <= 30 else f"{text[:20]}… ({len(text)} characters)"


def _common(fields: Fields) -> Json:
    """What both endpoints have."""
    temperature = fields.number("temperature", 1.0, 0, 2)
    top_p = fields.number("top_p", 1.0, 0, 1)
    if top_p == 0:
        raise bad("top_p must be above 0.", "top_p")
    seed = fields.whole("seed", secrets.randbelow(2**31), -2**63, 2**63 - 1)
    stream, usage = fields.flag("stream"), False
    if (options := fields.body.get("stream_options")) is not None:
        if not stream or not isinstance(options, dict):
            raise bad("stream_options is an object, and needs stream: true.", "stream_options")
        usage = _stream_options(options)
    return {"model": fields.text("model"), "n": fields.whole("n", 1, 1, MOST_CHOICES), "temperature": temperature, "top_p": top_p,
            "seed": seed % 2**63, "stop": _stops(fields.body.get("stop")), "bias": _bias(fields.body.get("logit_bias")),
            "stream": stream, "usage": usage, "user": _user(fields)}


def _stream_options(options: Json) -> bool:
    """Whether the usage is wanted."""
    for name, value in options.items():
        where = f"stream_options.{name[:60]}"
        if name not in ("include_usage", "include_obfuscation"):
            raise bad(f"{where} is not known.", where, "unknown_parameter")
        if value is not None and not isinstance(value, bool):
            raise bad(f"{where} must be true or false.", where, "invalid_type")
    if options.get("include_obfuscation"):
        raise bad("stream_options.include_obfuscation is not supported by this server.", "stream_options.include_obfuscation",
                  "unsupported_parameter")
    return bool(options.get("include_usage"))


def _user(fields: Fields) -> str:
    """Who asks, under OpenAI's old name or its new one."""
    given = {name: fields.text(name, "") for name in ("user", "safety_identifier")}
    for name, value in given.items():
        if len(value) > MOST_NAME:
            raise bad(f"{name} must have at most {MOST_NAME} characters.", name)
        if CONTROL.search(value):  # a rater's name goes into tables and reports, and PostgreSQL takes no NUL
            raise bad(f"{name} holds a control character.", name)
    if given["user"] and given["safety_identifier"] not in ("", given["user"]):
        raise bad("user and safety_identifier name two people. Give one of them.", "safety_identifier")
    return given["user"] or given["safety_identifier"]


def _stops(value: Any) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    right = isinstance(stops, list) and len(stops) <= MOST_STOPS and all(isinstance(s, str) for s in stops)
    if not right or not all(0 < len(s) <= MOST_STOP for s in stops):
        raise bad(f"stop must be a string or up to {MOST_STOPS} of them, of 1 to {MOST_STOP} characters.", "stop")
    for one in stops:
        _unicode(one, "stop")
    return tuple(stops)


def _bias(value: Any) -> tuple[tuple[int, float], ...]:
    if value is None:
        return ()
    if not isinstance(value, dict) or len(value) > 1000:
        raise bad("logit_bias must map at most 1000 token ids to numbers.", "logit_bias", "invalid_type")
    found = []
    for token, more in value.items():
        whole = token.isascii() and token.isdigit() and len(token) < 10
        if not whole or isinstance(more, bool) or not isinstance(more, int | float) or not -100 <= more <= 100:
            raise bad("logit_bias maps token ids to numbers from -100 to 100.", "logit_bias")
        found.append((int(token), float(more)))
    return tuple(found)


def read_chat(body: Any) -> Job:
    """A request of /v1/chat/completions. Raises `Refused`."""
    fields = Fields(body, COMMON | {"messages", "max_completion_tokens", "top_logprobs"})
    common = _common(fields)
    lengths = {name: fields.whole(name, 1, 1, 2**31) for name in ("max_completion_tokens", "max_tokens") if name in fields.body}
    if len(lengths) > 1:
        raise bad("Give max_completion_tokens or max_tokens, not both.", "max_tokens")
    most = next(iter(lengths.values()), None)
    wanted, top = fields.flag("logprobs"), fields.whole("top_logprobs", 0, 0, MOST_TOPS)
    if top and not wanted:
        raise bad("top_logprobs needs logprobs: true.", "top_logprobs")
    return Job(prompt=read_messages(fields.body.get("messages")), max_tokens=most, top=top if wanted else None, **common)


def read_messages(value: Any) -> Prompt:
    if not isinstance(value, list) or not value:
        raise bad("messages must be a list with at least one message.", "messages",
                  "invalid_type" if value is not None else "missing_required_parameter")
    messages = tuple(_message(m, f"messages[{i}]") for i, m in enumerate(value))
    try:
        return Prompt.checked(messages, {})
    except ValueError:
        last = messages[-1].role == "assistant"
        raise bad("The last message must not be the assistant's: there is nothing to answer." if last
                  else "All messages are empty.", "messages") from None


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise bad(f"{where} must be an object.", where, "invalid_type")
    role = value.get("role")
    if role in ("tool", "function"):
        raise bad(f"{where}: tools are not supported by this server.", f"{where}.role", "unsupported_parameter")
    if role not in ("system", "developer", "user", "assistant"):
        raise bad(f"{where}.role must be system, developer, user or assistant.", f"{where}.role")
    for name in sorted(value.keys() - {"role", "content"}):
        if value[name] not in (None, [], ""):
            raise bad(f"{where}.{name[:60]} is not supported by this server.", f"{where}.{name[:60]}", "unsupported_parameter")
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(p, f"{where}.content[{j}]") for j, p in enumerate(content))
    if not isinstance(content, str):
        raise bad(f"{where}.content must be text.", f"{where}.content", "invalid_type")
    _unicode(content, f"{where}.content")
    return Message("system" if role == "developer" else role, content)


def _part(value: Any, where: str) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind != "text":
        raise bad(f"{where}: only parts of type text are supported by this server; found {str(kind)[:40]}.", f"{where}.type",
                  "unsupported_parameter")
    if not isinstance(value.get("text"), str):
        raise bad(f"{where}.text must be a string.", f"{where}.text", "invalid_type")
    for name in sorted(value.keys() - {"type", "text"}):
        if value[name] is not None:
            raise bad(f"{where}.{name[:60]} is not supported by this server.", f"{where}.{name[:60]}", "unsupported_parameter")
    text: str = value["text"]
    return text


def _unicode(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise bad(f"{where} holds half a surrogate pair, which is no text.", where) from None


def read_completion(body: Any) -> list[Job]:
    """A request of /v1/completions: a job a prompt. Raises `Refused`."""
    fields = Fields(body, COMMON | {"prompt", "echo", "best_of", "return_token_ids"})
    common = _common(fields)
    most, echo = fields.whole("max_tokens", 16, 0, 2**31), fields.flag("echo")
    if most == 0 and not echo:
        raise bad("max_tokens must be at least 1, unless echo is true.", "max_tokens")
    if fields.whole("best_of", common["n"], 1, MOST_CHOICES) != common["n"]:
        raise bad("best_of is not supported by this server.", "best_of", "unsupported_parameter")
    top = fields.whole("logprobs", 0, 0, MOST_TOPS) if "logprobs" in fields.body else None
    with_ids = fields.flag("return_token_ids")
    if with_ids and (echo or common["stream"] or common["stop"]):
        raise bad("return_token_ids goes with neither echo, stream nor stop.", "return_token_ids", "unsupported_parameter")
    prompts = _prompts(fields.body.get("prompt", ""))
    return [Job(max_tokens=most, top=top, echo=echo, with_ids=with_ids, **common, **prompt) for prompt in prompts]


def _prompts(value: Any) -> Sequence[Mapping[str, Any]]:
    def whole(ids: Any) -> bool:
        return isinstance(ids, list) and bool(ids) and all(type(i) is int and i >= 0 for i in ids)

    if isinstance(value, str) or whole(value):
        value = [value]
    several = isinstance(value, list) and 0 < len(value) <= MOST_PROMPTS
    if not several or not all(isinstance(v, str) or whole(v) for v in value):
        raise bad(f"prompt must be a string, a list of token ids, or up to {MOST_PROMPTS} of either.", "prompt", "invalid_type")
    for one in value:
        if isinstance(one, str):
            _unicode(one, "prompt")
    return [{"text": v} if isinstance(v, str) else {"ids": tuple(v)} for v in value]


def chosen(model: str, names: Sequence[str]) -> None:
    """Raises `Refused` where there is no such model here."""
    if model not in names:
        raise Refused(404, f"The model {model[:80]!r} does not exist here. There is: {', '.join(names)}.", param="model",
                      code="model_not_found")

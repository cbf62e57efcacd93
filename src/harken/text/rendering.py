"""A chat template as a function from messages to text, in a Jinja that bounds what a stranger's template can take.

    render = compile_template(source)
    render([{"role": "user", "content": "Hi"}], tools=None, opened=True, day=date(2026, 11, 30), bos_token="<s>")

The dialect is transformers' (trimmed blocks, loop controls, `tojson` without HTML escapes, `raise_exception`, `strftime_now`,
`generation` blocks); the day is given, not read from the clock. What every rendering may take: `SECONDS` of processor time,
`MOST_CHARACTERS` characters in one value and `TOTAL` in all. Loops, macros, sums, products, filters and calls are counted
where they happen, so that neither nested ranges nor 'a' * 10**10 begin.
"""

from __future__ import annotations

import functools
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import date, datetime
from typing import Any

from jinja2 import Undefined, ext, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

SECONDS = 3.0
MOST_CHARACTERS, MOST_ITEMS, TOTAL = 10_000_000, 500_000, 100_000_000
MOST_NUMBER, MOST_BITS, MOST_SOURCE = 100_000, 4096, 1_000_000
GROWING = {"replace", "join", "ljust", "rjust", "center", "zfill", "expandtabs", "format", "format_map", "indent",
           "wordwrap", "tojson"}
"""Filters and methods of text whose result can be as long as the product of what they are given."""
SHALLOW = {"length", "count", "first", "last", "list", "default", "d", "items", "reverse", "map", "select", "selectattr",
           "reject", "rejectattr", "attr"}
"""Filters that do not look into what a list holds."""


SIZED: Any = str | list | tuple | range | Mapping


class TooMuch(SecurityError):
    """A template that asks for more time or room than any conversation needs."""


class Meter:
    """What one rendering has taken."""

    def __init__(self) -> None:
        self.end, self.spent = time.thread_time() + SECONDS, 0

    def charge(self, size: int) -> None:
        self.spent += size + 1
        if self.spent > TOTAL:
            raise TooMuch(f"it writes more than {TOTAL:,} characters")
        if time.thread_time() > self.end:
            raise TooMuch(f"it takes longer than {SECONDS:g} seconds")


METER: ContextVar[Meter | None] = ContextVar("meter", default=None)


def charge(size: int) -> None:
    if size > MOST_CHARACTERS:
        raise TooMuch(f"it makes a text of {size:,} characters")
    if meter := METER.get():
        meter.charge(size)


def weigh(value: Any) -> int:
    """Characters and items in a value, lists in lists counted as often as they would be written. Raises `TooMuch`."""
    total, items, waiting = 0, 0, [value]
    while waiting:
        part = waiting.pop()
        total, items = total + 1, items + 1
        if items > MOST_ITEMS or total > MOST_CHARACTERS:
            raise TooMuch("it makes too long a list")
        if isinstance(part, str):
            total += len(part)
        elif isinstance(part, Namespace):
            waiting.append(part._Namespace__attrs)
        elif isinstance(part, Mapping):
            waiting.extend(part)
            waiting.extend(part.values())
        elif isinstance(part, list | tuple | set | range):
            waiting.extend(part)
    return total


def _check(name: str, args: Sequence[Any]) -> None:
    """Refuses a call whose result could be too long, before it is made."""
    numbers = [a for a in args if isinstance(a, int) and not isinstance(a, bool)]
    if any(abs(n) > MOST_NUMBER for n in numbers):
        raise TooMuch(f"it asks {name} for {max(map(abs, numbers)):,}")
    sizes = sorted((len(a) if isinstance(a, str) else weigh(a) for a in args if isinstance(a, SIZED)), reverse=True)
    if name in GROWING:
        first = sizes[0] if sizes else 1
        if first * max([1, *numbers, *sizes[1:]]) > MOST_CHARACTERS * 10 or first > MOST_CHARACTERS:
            raise TooMuch(f"it makes a text of {first * max([1, *numbers, *sizes[1:]]):,} characters")
        if "format" in name and any(isinstance(a, str) and re.search(r"\d{5,}|\*", a) for a in args):
            raise TooMuch("it formats to a width of five digits")
    charge(sizes[0] if sizes else 0)


def _guarded(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def guarded(*args: Any, **options: Any) -> Any:
        if name == "join":
            args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)
        if name not in SHALLOW:
            _check(name, [*args, *options.values()])
        return call(*args, **options)
    return guarded


class _Counting(NodeTransformer):
    """Puts a count into every loop and macro, and a measure around every list and joined text."""

    def _counted(self, node: Any) -> Any:
        node = self.generic_visit(node)
        size = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        count = nodes.ExprStmt(self._call("count", [nodes.Const(size)]), lineno=node.lineno)
        node.body.insert(0, count)
        return node

    visit_For = visit_Macro = visit_CallBlock = _counted

    def _call(self, name: str, args: list[Any]) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(name), args, [], None, None)

    def visit_Concat(self, node: nodes.Concat) -> Any:
        return self._call("joined", self.generic_visit(node).nodes).set_lineno(node.lineno)  # type: ignore[attr-defined]

    def _measured(self, node: Any) -> Any:
        node = self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else self._call("measured", [node]).set_lineno(node.lineno)

    visit_List = visit_Tuple = visit_Dict = _measured


class _Generation(ext.Extension):
    """`{% generation %}` marks an answer; here it is its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Any) -> Any:
        return caller()


class _Dict:
    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        return dict(*args, **named)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Bounded(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(("+", "*", "**", "%"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, ext.loopcontrols],
                         finalize=self._written)
        self.filters["tojson"] = _tojson
        self.filters = {name: _guarded(name, f) for name, f in self.filters.items()}
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _refuse, "dict": _Dict(), "namespace": Namespace}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counting().visit(super()._parse(source, name, filename))
        return tree

    @staticmethod
    def count(size: int) -> None:
        charge(size)

    @staticmethod
    def measured(value: Any) -> Any:
        charge(weigh(value))
        return value

    @staticmethod
    def joined(*values: Any) -> str:
        charge(sum(map(weigh, values)))
        return "".join(map(str, values))

    @staticmethod
    def _written(value: Any) -> Any:
        charge(len(value) if isinstance(value, str) else 1 if isinstance(value, Undefined) else weigh(value))
        return value

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MOST_BITS and operator in ("*", "**"):
                raise TooMuch(f"it computes a number of {bits:,} bits")
        elif operator == "*":
            size = max((len(x) for x in (left, right) if isinstance(x, str | list | tuple)), default=1)
            charge(size * max([1, *(x for x in (left, right) if isinstance(x, int))]))
        elif operator == "+":
            charge(sum(len(x) for x in (left, right) if isinstance(x, str | list | tuple)))
        elif operator == "%" and isinstance(left, str):
            _check("format", [left, *(right if isinstance(right, tuple) else [right])])
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **named: Any) -> Any:
        own = getattr(__obj, "__wrapped__", __obj)  # of text's `format`, which the sandbox wraps
        owner, name = getattr(own, "__self__", None), getattr(own, "__name__", "")
        if isinstance(owner, str):
            args = tuple(list(a) if isinstance(a, Iterator) else a for a in args)
            _check(name, [owner, *args, *named.values()])
        return super().call(__context, __obj, *args, **named)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None,
            sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise TemplateError(message)


@functools.cache
def _environment() -> _Bounded:
    return _Bounded()


@functools.lru_cache(maxsize=64)
def compile_template(source: str) -> Callable[..., str]:
    """A renderer of `source`. Raises what Jinja raises for a source that is no template, and `TooMuch`."""
    if len(source) > MOST_SOURCE:
        raise TooMuch(f"its source has {len(source):,} characters")
    compiled = _environment().from_string(source)

    def render(messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] | None, opened: bool, day: date,
               **tokens: Any) -> str:
        moment = datetime(day.year, day.month, day.day)
        token = METER.set(Meter())
        try:
            parts, size = [], 0
            for part in compiled.generate(messages=messages, tools=tools, documents=None, add_generation_prompt=opened,
                                          strftime_now=moment.strftime, **tokens):
                size += len(part)
                charge(0 if size <= MOST_CHARACTERS else size)
                parts.append(part)
            return "".join(parts)
        finally:
            METER.reset(token)

    return render

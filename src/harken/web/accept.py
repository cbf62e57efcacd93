"""Whether a value fits a JSON Schema, compiled once a schema: what every answer is asked, several times.

    accepts(ANSWER)({"text": "x"})      # True or False; what does not fit, `json_schema.check` says

The same rules as `json_schema` words, as nested functions of one value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

Test = Callable[[Any], bool]
DEPTH = 50
"""How deep lists and objects may lie in each other."""
BIG = 2**53 - 1
HALVES = re.compile("[\ud800-\udfff]")
MOST = 4000
_tests: dict[int, tuple[dict[str, Any], Test]] = {}  # by the schema's id, which it keeps while it stands here


def accepts(schema: dict[str, Any]) -> Test:
    """The test of a schema, which must not be changed afterwards."""
    known = _tests.get(id(schema))
    if known is not None:
        return known[1]
    test = _compile(schema)
    if len(_tests) < MOST:
        _tests[id(schema)] = schema, test
    return test


def storable(value: Any, depth: int = 0) -> bool:
    """No NUL, no half of a surrogate pair, no number that is not finite, nothing more than `DEPTH` deep."""
    kind = type(value)
    if kind is str:
        return "\x00" not in value and (value.isascii() or HALVES.search(value) is None)
    if kind is float:
        return math.isfinite(value)
    if (kind is not dict and kind is not list) or not value:
        return True
    if depth == DEPTH:
        return False
    if kind is dict:
        for key in value:
            if "\x00" in key or not (key.isascii() or HALVES.search(key) is None):
                return False
        value = value.values()
    for one in value:
        kind = type(one)
        if kind is int or kind is bool or one is None or (kind is str and one.isascii() and "\x00" not in one):
            continue
        if not storable(one, depth + 1):
            return False
    return True


def _compile(schema: dict[str, Any]) -> Test:
    if "anyOf" in schema:
        return _any([_compile(one) for one in schema["anyOf"]])
    if "enum" in schema:
        return _enum(schema["enum"])
    kind = schema.get("type")
    if kind is None:
        return storable
    return KINDS[kind](schema)


def _any(tests: list[Test]) -> Test:
    if len(tests) == 2:
        first, second = tests
        return lambda value: first(value) or second(value)
    return lambda value: any(test(value) for test in tests)


def _enum(values: list[Any]) -> Test:
    if all(type(v) is str for v in values):
        words = frozenset(values)
        return lambda value: type(value) is str and value in words
    return lambda value: any(value == v and type(value) is type(v) for v in values)


def _string(schema: dict[str, Any]) -> Test:
    low, high = schema.get("minLength", 0), schema.get("maxLength", BIG)
    match = re.compile(schema["pattern"]).fullmatch if "pattern" in schema else None

    def test(value: Any) -> bool:
        return isinstance(value, str) and low <= len(value) <= high and storable(value) and (
            match is None or match(value) is not None)

    return test


def _number(schema: dict[str, Any]) -> Test:
    low, high = schema.get("minimum", -BIG), schema.get("maximum", BIG)
    kinds = int if schema["type"] == "integer" else (int, float)
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high


def _array(schema: dict[str, Any]) -> Test:
    low, high = schema.get("minItems", 0), schema.get("maxItems", BIG)
    each = _compile(schema.get("items", {}))
    return lambda value: isinstance(value, list) and low <= len(value) <= high and all(map(each, value))


def _object(schema: dict[str, Any]) -> Test:
    tests = {name: _compile(one) for name, one in schema.get("properties", {}).items()}
    rest = schema.get("additionalProperties", True)
    other = None if rest is False else _compile(rest if isinstance(rest, dict) else {})
    required, most = schema.get("required", ()), schema.get("maxProperties", BIG)

    def test(value: Any) -> bool:
        if not isinstance(value, dict) or len(value) > most:
            return False
        for name in required:
            if name not in value:
                return False
        for name, entry in value.items():
            known = tests.get(name)
            if known is None:
                if other is None or not storable(name):
                    return False
                known = other
            if not known(entry):
                return False
        return True

    return test


KINDS: dict[str, Callable[[dict[str, Any]], Test]] = {
    "string": _string, "integer": _number, "number": _number, "array": _array, "object": _object,
    "boolean": lambda _: lambda value: value is True or value is False, "null": lambda _: lambda value: value is None}

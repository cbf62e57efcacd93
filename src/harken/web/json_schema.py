"""JSON Schema, the part the API needs: built by small functions, checked here, published in OpenAPI as it stands.

    ANSWER = obj({"text": text(100), "ranks": array(integer(1, 9), 2, 9)}, optional=("ranks",))
    check(ANSWER, {"text": "x"})            # or ApiError: `"ranks[1]" must be …`
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from harken.web.accept import BIG, DEPTH, HALVES, accepts, storable
from harken.web.errors import ApiError

Schema = dict[str, Any]
TYPES: dict[str, tuple[type, ...]] = {"object": (dict,), "array": (list,), "string": (str,), "integer": (int,),
                                      "number": (int, float), "boolean": (bool,), "null": (type(None),)}
ANY: Schema = {}
BOOLEAN: Schema = {"type": "boolean"}
UUID: Schema = {"type": "string", "minLength": 8, "maxLength": 64, "pattern": "^[A-Za-z0-9_-]+$"}
TIME: Schema = {"type": "string", "format": "date-time"}
ID: Schema = {"type": "integer", "minimum": 1, "maximum": BIG}


def text(longest: int, shortest: int = 0) -> Schema:
    return {"type": "string", "minLength": shortest, "maxLength": longest}


def integer(low: int = 0, high: int = BIG) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def number(low: float = 0, high: float = 1e9) -> Schema:
    return {"type": "number", "minimum": low, "maximum": high}


def enum(*values: Any) -> Schema:
    return {"enum": list(values)}


def array(items: Schema, fewest: int = 0, most: int = 500) -> Schema:
    return {"type": "array", "items": items, "minItems": fewest, "maxItems": most}


def nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def either(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def obj(fields: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    """An object with these fields and no others."""
    return {"type": "object", "properties": dict(fields), "required": [f for f in fields if f not in optional],
            "additionalProperties": False}


def mapping(values: Schema, most: int = 100) -> Schema:
    return {"type": "object", "additionalProperties": values, "maxProperties": most}


def check(schema: Schema, value: Any, where: str = "", code: str = "bad_request",
          hint: str = "The API's description is at /api/openapi.json.") -> None:
    """Raises `ApiError` with the first thing that does not fit."""
    if accepts(schema)(value):
        return
    problem = _problem(schema, value, where)
    if problem:
        raise ApiError(code, f"{problem}.", "Correct it, or skip the task with a reason." if code == "bad_answer" else hint)


def _problem(schema: Schema, value: Any, where: str) -> str | None:
    name = f'"{where}"' if where else "the body"
    if "anyOf" in schema:
        problems = [_problem(s, value, where) for s in schema["anyOf"]]
        if None in problems:
            return None
        meant = [(_shared(value, s), -n, p) for n, (p, s) in enumerate(zip(problems, schema["anyOf"])) if _is(value, s)]
        return max(meant)[2] if meant else problems[0]
    if "enum" in schema:
        if any(value == v and type(value) is type(v) for v in schema["enum"]):
            return None
        return f"{name} must be one of {', '.join(map(str, schema['enum']))}"
    kind = schema.get("type")
    if kind is None:
        return _unstorable(value, name)
    if not _is(value, schema):
        return f"{name} must be {'an' if kind[0] in 'aio' else 'a'} {kind}, found {type(value).__name__}"
    if kind == "string":
        return _text_problem(schema, value, name)
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", -BIG), schema.get("maximum", BIG)
        return None if low <= value <= high else f"{name} must lie within {low} and {high}"
    if kind == "array":
        return _array_problem(schema, value, name, where)
    return _object_problem(schema, value, name, where) if kind == "object" else None


def _is(value: Any, schema: Schema) -> bool:
    kind = schema.get("type")
    if kind is None:
        return True
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _shared(value: Any, schema: Schema) -> int:
    """How many of an object's fields a schema knows: of several, the one with the most is meant."""
    return len(value.keys() & schema.get("properties", {}).keys()) if isinstance(value, dict) else 0


def _text_problem(schema: Schema, value: str, name: str) -> str | None:
    if problem := _unstorable(value, name):
        return problem
    low, high = schema.get("minLength", 0), schema.get("maxLength", BIG)
    if not low <= len(value) <= high:
        return f"{name} must have {low} to {high} characters, found {len(value)}"
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        return f"{name} must match {schema['pattern']}"
    return None


def _unstorable(value: Any, name: str) -> str | None:
    """What cannot be stored and sent on everywhere: NUL and halves of surrogate pairs (PostgreSQL refuses both), numbers that
    are not finite (no JSON), and lists within lists beyond `DEPTH`."""
    level, depth = [value], 0
    while level:
        if depth > DEPTH:
            return f"{name} lies more than {DEPTH} deep"
        inner: list[Any] = []
        for one in level:
            if isinstance(one, str):
                if problem := _unstorable_text(one):
                    return f"{name} holds {problem}"
            elif isinstance(one, float) and not math.isfinite(one):
                return f"{name} holds a number that is not finite"
            elif isinstance(one, dict):
                inner += [*one.keys(), *one.values()]
            elif isinstance(one, list):
                inner += one
        level, depth = inner, depth + 1
    return None


def _unstorable_text(value: str) -> str | None:
    if "\x00" in value:
        return "a NUL character"
    if not value.isascii() and HALVES.search(value):
        return "half a surrogate pair"
    return None


def bounded(value: Any) -> Any:
    """The value, where its lists and objects lie no deeper than `DEPTH` in each other and its numbers are finite."""
    problem = None if storable(value) else _unstorable(value, "the body")
    if problem and ("deep" in problem or "finite" in problem):
        raise ApiError("bad_request", f"{problem[0].upper()}{problem[1:]}.", "Send it flatter, with finite numbers.")
    return value


def _array_problem(schema: Schema, value: list[Any], name: str, where: str) -> str | None:
    low, high = schema.get("minItems", 0), schema.get("maxItems", BIG)
    if not low <= len(value) <= high:
        return f"{name} must have {low} to {high} entries, found {len(value)}"
    items = schema.get("items", ANY)
    return next((p for i, v in enumerate(value) if (p := _problem(items, v, f"{where}[{i}]"))), None)


def _object_problem(schema: Schema, value: dict[str, Any], name: str, where: str) -> str | None:
    fields, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    if missing := [f for f in schema.get("required", ()) if f not in value]:
        return f'{name} lacks "{missing[0]}"'
    if len(value) > schema.get("maxProperties", BIG):
        return f"{name} has more than {schema['maxProperties']} fields"
    for key, entry in value.items():
        inner = f"{where}.{key}" if where else key
        if key not in fields and rest is False:
            return f'{name} has an unknown field "{key[:60]}"'
        problem = _unstorable(key, name) or _problem(fields.get(key, rest if isinstance(rest, dict) else ANY), entry, inner)
        if problem:
            return problem
    return None

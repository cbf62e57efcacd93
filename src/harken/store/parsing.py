"""Rows out of text: JSON Lines, JSON arrays, and what is wrong with a line that is neither."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from harken.core.errors import UserError

LINE = 16 << 20  # bytes; a longer row is no row, but may fill the memory
DEPTH = 50
CHUNK = 1 << 20
NO_VALUE = " is no JSON value"
LONG = "No row is that long: look at the file."
AS_LINES = "Write one row a line, or an array of rows; with pandas: frame.to_json(FILE, orient='records', lines=True)."
WHOLE = 256 << 20  # bytes: one JSON object is parsed as a whole
ROW_NAMES = frozenset(("prompt", "completion", "completions", "chosen", "rejected", "messages", "conversations", "conversation",
                       "instruction", "question", "query", "input", "contents", "answers", "instances", "replies"))
"""A field of these names makes an object a row, whatever lists it holds."""
MESSAGE_LISTS = frozenset(("messages", "conversations", "conversation", "contents"))
NO_JSON, NO_ROW = "not valid JSON", "text, not a row, and the file's first line does not name columns"
AS_ROWS = ('Write one row a line, like {"prompt": "…", "completion": "…"}, or a table whose first line names its columns; '
           "text to learn from as it is belongs to harken annotate.")
NO_UTF8 = "Save the file as UTF-8, or name its encoding: --encoding NAME."
COPY = "the file may be incomplete: copy it again"
TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"(?=\s*[,:}\]])|[\[\]{}"]')
Rows = Iterator[tuple[int, object]]


class BadLine(ValueError):
    """A malformed row: `reason` is what is counted, `detail` what only this row shows. `action` is what to do where leaving
    the row out would not be safe: then it is never left out."""

    def __init__(self, reason: str, detail: str = "", action: str = "") -> None:
        self.reason, self.action = reason, action
        super().__init__(f"{reason} ({detail})" if detail else reason)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadLine(f'the field "{twice[:40]}" stands twice in one object')
    return fields


def _constant(name: str) -> Any:
    raise BadLine(f"{name}{NO_VALUE}", "a missing number is null")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadLine(f"the number {text[:20]} is too large")
    return value


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
SCAN: Callable[[str, int], tuple[object, int]] = vars(DECODER)["scan_once"]


def shallow(value: object, text: str) -> object:
    """The value, if it is nested at most `DEPTH` deep."""
    if text.count("[") + text.count("{") > DEPTH and _depth(value) > DEPTH:
        raise BadLine("nested too deeply", f"more than {DEPTH} levels")
    return value


def _depth(value: object) -> int:
    level, depth = [value], 0
    while level:
        level = [inner for v in level for inner in (v.values() if isinstance(v, dict) else v if isinstance(v, list) else ())
                 if isinstance(inner, (dict, list))]
        depth += 1
    return depth


def parse(text: str) -> object:
    """One line of JSON. Raises BadLine with what is wrong."""
    try:
        return shallow(_value(text), text)
    except BadLine as error:
        if error.reason.endswith(NO_VALUE):
            raise _named(text, error) from None
        raise
    except RecursionError:
        raise BadLine("nested too deeply") from None
    except ValueError as error:
        raise wrong_line(text, error) from None


def _value(text: str) -> object:
    if text[:1] == "{":  # the decoder's own steps around its scanner take as long as a short row
        try:
            value, end = SCAN(text, 0)
        except StopIteration:  # cut short: `decode` says where
            return DECODER.decode(text)
        if end == len(text) or text[end:] in ("\n", "\r\n"):
            return value
    return DECODER.decode(text)


def _named(text: str, error: BadLine) -> BadLine:
    """The same error with the field it is in, where the line is JSON but for that."""
    with contextlib.suppress(ValueError, RecursionError):
        if field := _not_finite(json.loads(text), ""):
            return BadLine(error.reason, f'in "{field}"; a missing number is null')
    return error


def _not_finite(value: object, name: str) -> str | None:
    """The name of the first number that is NaN or infinite: `meta.score`."""
    if isinstance(value, float):
        return None if math.isfinite(value) else name
    inner = ([(f"{name}.{k}" if name else k, v) for k, v in value.items()] if isinstance(value, dict)
             else [(f"{name}[{i}]", v) for i, v in enumerate(value)] if isinstance(value, list) else [])
    return next((found for key, v in inner if (found := _not_finite(v, key))), None)


def wrong_line(text: str, error: ValueError) -> BadLine:
    """What is wrong with a line that is no JSON, where that can be told."""
    line, reason = text.strip(), str(error)
    low = line[:200].lower()
    if low.startswith(("<!doctype", "<html", "<?xml", "<head", "<body")):
        return BadLine("this is a web page (HTML) and not data", "", "Download the data again; the page may say what went wrong.")
    if line.endswith(",") and _parses(line[:-1]):
        return BadLine("lines are separated by commas", "",
                       "Take the comma off each line's end, or put all rows into one array: [ … ].")
    if "\r" in line and _parses(line.split("\r")[0]):
        return BadLine("lines end with a carriage return alone", "", "Convert them: tr '\\r' '\\n' < FILE > NEW.jsonl")
    if line == "{" or (line.startswith("{") and "Expecting property name" in reason and line.endswith("{")):
        return BadLine("an object goes over several lines", "",
                       "Write one object a line (jq -c . FILE > NEW.jsonl), or an array of them.")
    if line.startswith(("//", "#", "/*")):
        return BadLine("a comment stands among the rows, which JSON does not have")
    if line.startswith(("{'", "[{'")):
        return BadLine("quotes are single, as Python shows objects: not JSON", "", "Write the rows with json.dumps, one a line.")
    if line[:1] not in ("{", "[", '"'):
        return BadLine(NO_JSON, NO_ROW)
    if not text.endswith("\n"):
        return BadLine("the last line is cut short", COPY)
    return BadLine(NO_JSON, reason)


def _parses(text: str) -> bool:
    try:
        DECODER.decode(text)
    except (ValueError, RecursionError):
        return False
    return True


class Decoder:
    """Bytes to text: UTF-8, or Windows-1252 for the whole file where `western` says so when UTF-8 fails first."""

    def __init__(self, western: Callable[[], bool]) -> None:
        self._western, self.legacy = western, False
        self._asked = False

    def line(self, data: bytes) -> str:
        if self.legacy:
            return data.decode("cp1252")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            self._other(error)
        return data.decode("cp1252")

    def _other(self, error: UnicodeDecodeError) -> None:
        if not self._asked:
            self._asked, self.legacy = True, self._western()
        if not self.legacy:
            raise BadLine("not UTF-8 text", f"byte {error.start + 1}") from None

    def chunks(self, stream: io.BufferedReader) -> Iterator[str]:
        """The stream's text by the megabyte."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        while True:
            data = stream.read(CHUNK)
            try:
                text = data.decode("cp1252") if self.legacy else decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                self._other(error)
                text = bytes(error.object).decode("cp1252")
            if text:
                yield text
            if not data:
                return


def lines(stream: io.BufferedReader, decoder: Decoder) -> Rows:
    """(number, function that parses it) of each line that is not blank."""
    number = 0
    while line := stream.readline(LINE + 1):
        number += 1
        if len(line) > LINE:
            yield number, failing(BadLine(f"the line is longer than {LINE >> 20} MB", "", LONG))
            return
        if line.strip():
            yield number, _parser(line, decoder)


def _parser(line: bytes, decoder: Decoder) -> Callable[[], object]:
    def read() -> object:
        return parse(decoder.line(line))
    return read


def failing(error: BadLine) -> Callable[[], object]:
    """A row that cannot be read, to be refused or counted by who reads it."""
    def fail() -> object:
        raise error
    return fail


def is_one_object(stream: io.BufferedReader) -> bool:
    """Whether a file that begins with "{" is one JSON object, over several lines or with a row's worth of lists in it: then its
    first line is no whole row, or nothing follows it."""
    head = stream.peek(1 << 16).lstrip()
    first, end, rest = head.partition(b"\n")
    if len(first) < 2 or not first.rstrip().endswith(b"}"):
        return (bool(end) and first.strip() in (b"{", b"")) or bool(re.match(rb'\{\s*"[^"]*"\s*:\s*[\[{]\s*$', first.rstrip())) \
            or (len(first) == len(head) and b"\n" not in head)
    return not rest.strip()


def one_object(stream: io.BufferedReader, decoder: Decoder, name: str) -> Rows:
    """(number, row) of a file that is one JSON object: a row, or the one list of rows in it (`{"version": 1, "data": [...]}`)."""
    data = stream.read(WHOLE + 1)
    if len(data) > WHOLE:
        raise UserError(f"{name} is one JSON object of more than {WHOLE >> 20} MB.", AS_LINES)
    try:
        text = decoder.line(data).strip()
        if b"\n" in data and not _parses(text):  # objects one below the other, or damage
            yield from lines(io.BufferedReader(io.BytesIO(data)), decoder)
            return
        value = parse(text + "\n")
    except BadLine as error:
        yield 1, failing(error)
        return
    assert isinstance(value, dict)
    inside = [key for key, held in value.items() if isinstance(held, list) and held and all(isinstance(r, dict) for r in held)]
    others = [key for key, held in value.items() if isinstance(held, (list, dict)) and key not in inside]
    if not set(value) & ROW_NAMES and inside and not others:
        if len(inside) > 1:
            raise UserError(f"{name} is one JSON object that holds rows under {', '.join(inside)}.",
                            f"Write one of them into a file of its own: jq '.{inside[0]}' FILE > NEW.json")
        yield from enumerate(value[inside[0]], 1)
        return
    lengths = {len(held) for held in value.values() if isinstance(held, (list, dict))}
    if len(value) > 1 and len(lengths) == 1 and all(isinstance(held, (list, dict)) for held in value.values()) \
            and not set(value) & MESSAGE_LISTS:
        raise UserError(f"{name} is one JSON object of columns ({', '.join(map(str, list(value)[:5]))}), not of rows.", AS_LINES)
    yield 1, value


class Array:
    """The elements of one JSON array, read by the megabyte. Iterating gives (line, row or function that raises BadLine)."""

    BROKEN = "the array is broken or cut short here"

    def __init__(self, stream: io.BufferedReader, decoder: Decoder) -> None:
        self._chunks = decoder.chunks(stream)
        self.text, self.at, self._line, self._counted = "", 0, 1, 0

    def __iter__(self) -> Rows:
        try:
            yield from self._elements()
        except BadLine as error:  # not UTF-8 in the middle
            action = error.action or NO_UTF8
            yield self._number(), failing(BadLine(error.reason, str(error).removeprefix(error.reason).strip(" ()"), action))

    def _elements(self) -> Rows:
        while "[" not in self.text and self._more():
            pass
        self.at = self.text.index("[") + 1
        while True:
            self._drop()
            if self._space() == "]":
                yield from self._after()
                return
            number = self._number()
            if not self.text[self.at:]:
                yield number, failing(BadLine(self.BROKEN, COPY))
                return
            start = self.at
            try:
                row = self._element()
            except BadLine as error:
                if error.action or not self._pass(start):
                    yield number, failing(error if error.action else self._lost(error, start))
                    return
                yield number, failing(error)
                if self._space() == ",":
                    self.at += 1
                continue
            yield number, row
            if self._space() == ",":
                self.at += 1
            elif self.text[self.at:self.at + 1] != "]":
                yield number, failing(self._lost(BadLine(self.BROKEN, 'expected "," or "]" after this row'), self.at))
                return

    def _element(self) -> object:
        """The element at `at`. Reads on while the text may only be too short."""
        while True:
            try:
                row, end = DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                short = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - 12
                if short and self._more():
                    continue
                raise BadLine(self.BROKEN, COPY if error.pos >= len(self.text) else error.msg) from None
            except RecursionError:
                raise BadLine("nested too deeply") from None
            except BadLine:
                raise
            except ValueError as error:  # a number of thousands of digits
                raise BadLine(self.BROKEN, str(error)) from None
            if end == len(self.text) and self._more():
                continue  # a number may go on
            shallow(row, self.text[self.at:end])
            self.at = end
            return row

    def _pass(self, start: int) -> bool:
        """Goes past a broken element, by its brackets; False where its end cannot be told."""
        while True:
            depth = 0
            for token in TOKEN.finditer(self.text, start):
                if token[0] == '"':  # a quote too few or too many: nobody can tell where strings end
                    break
                depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
                if depth < 0:
                    return False
                if depth == 0 and token[0] in "]}":
                    self.at = token.end()
                    return self._space() in (",", "]")
            if len(self.text) - self.at > LINE or not self._more():
                return False

    def _lost(self, error: BadLine, start: int) -> BadLine:
        """Where rows may follow a broken one that cannot be passed, it must not be left out: nobody could count them."""
        while len(self.text) - self.at <= LINE and self._more():
            pass
        if "{" in self.text[start + 1:].partition("\n")[2]:
            return BadLine(error.reason, str(error).removeprefix(error.reason).strip(" ()"),
                           "Correct it: what follows in the array cannot be told apart from it.")
        return error

    def _after(self) -> Rows:
        self.at += 1
        if self._space():
            rest = self.text[self.at:self.at + 20]
            yield self._number(), failing(BadLine("more follows after the array", repr(rest),
                                                  "A file holds one array: join them, or write one object a line."))

    def _space(self) -> str:
        """Passes white space; the character after it, empty at the end."""
        while True:
            while self.text[self.at:self.at + 1] in (" ", "\t", "\n", "\r") and self.at < len(self.text):
                self.at += 1
            if self.at < len(self.text) or not self._more():
                return self.text[self.at:self.at + 1]

    def _number(self) -> int:
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        return self._line

    def _more(self) -> bool:
        """Reads on. An element that is too long is refused."""
        if len(self.text) - self.at > LINE:
            raise BadLine(f"a row of the array is longer than {LINE >> 20} MB", "", LONG)
        chunk = next(self._chunks, "")
        self.text += chunk
        return bool(chunk)

    def _drop(self) -> None:
        """Forgets the elements that are passed."""
        if self.at > CHUNK:
            self._number()
            self.text, self.at, self._counted = self.text[self.at:], 0, 0

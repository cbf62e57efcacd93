"""Counts and times in Prometheus' text format; no names, no prompts."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterator, Mapping

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
Labels = tuple[tuple[str, str], ...]


class Histogram:
    def __init__(self) -> None:
        self.counts, self.total = [0] * (len(SECONDS) + 1), 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


class Metrics:
    HELP: Mapping[str, tuple[str, str]] = {
        "harken_requests_total": ("counter", "Requests, by route and status."),
        "harken_feedback_total": ("counter", "Feedback stored, by kind."),
        "harken_prompt_tokens_total": ("counter", "Tokens of prompts, by model."),
        "harken_completion_tokens_total": ("counter", "Tokens said, by model."),
        "harken_shed_total": ("counter", "Requests refused because too many waited, by model."),
        "harken_left_total": ("counter", "Requests whose client left before the end, by model."),
        "harken_first_token_seconds": ("histogram", "From the request to the first token, by model."),
        "harken_between_tokens_seconds": ("histogram", "Between two tokens of one choice, by model."),
        "harken_request_seconds": ("histogram", "From the request to the end, by model."),
        "harken_loop_refused_total": ("counter", "Models of a loop that were not loaded: not approved as they lie there."),
        "harken_choices": ("gauge", "Choices asked for and not ended, by model."),
        "harken_rows": ("gauge", "Choices that are answered at once, by model."),
    }

    def __init__(self) -> None:
        self._numbers: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._times: dict[str, dict[Labels, Histogram]] = defaultdict(lambda: defaultdict(Histogram))

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        self._numbers[name][tuple(labels.items())] += by

    def set(self, name: str, value: float, **labels: str) -> None:
        self._numbers[name][tuple(labels.items())] = value

    def time(self, name: str, seconds: float, **labels: str) -> None:
        self._times[name][tuple(labels.items())].add(seconds)

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        for name, (kind, words) in self.HELP.items():
            yield f"# HELP {name} {words}"
            yield f"# TYPE {name} {kind}"
            for labels, value in self._numbers[name].items():
                yield f"{name}{_labels(labels)} {value:g}"
            for labels, times in self._times[name].items():
                so_far = 0
                for bound, n in zip((*SECONDS, "+Inf"), times.counts):
                    so_far += n
                    yield f"{name}_bucket{_labels((*labels, ('le', str(bound))))} {so_far}"
                yield f"{name}_sum{_labels(labels)} {times.total:g}"
                yield f"{name}_count{_labels(labels)} {so_far}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

"""Prompts by use case, by language or by tag.

    grouped(prompts, "language")      # {"de": [0, 4], "en": [1, 2, 3]}: places in `prompts`
"""

from __future__ import annotations

from collections.abc import Sequence

from harken.core.records import Prompt

KINDS = ("use_case", "language", "tag")
LANGUAGE = "language:"


def language(prompt: Prompt) -> str | None:
    """The prompt's field "language" or "lang", or its tag language:xx."""
    given = prompt.meta.get("language") or prompt.meta.get("lang")
    if isinstance(given, str):
        return given
    return next((tag.removeprefix(LANGUAGE) for tag in prompt.tags if tag.startswith(LANGUAGE)), None)


def grouped(prompts: Sequence[Prompt], by: str) -> dict[str, list[int]]:
    """Places by group, in order of appearance; a prompt without a group is in none, one with several tags in several."""
    found: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        one = {"use_case": prompt.use_case, "language": language(prompt)}
        names: list[str | None] = list(prompt.tags) if by == "tag" else [one[by]]
        for name in dict.fromkeys(names):
            if name:
                found.setdefault(name, []).append(i)
    return found

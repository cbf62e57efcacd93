"""Texts that stand for a conversation: how importers recognise them, and when a prompt must be written as messages."""

from __future__ import annotations

import re

HUMAN_TURN = re.compile(r"\s*(?:System:.*?\n\nHuman:|Human:)", re.S)
"""The beginning of an Anthropic transcript."""

JSON_MESSAGES = re.compile(r"""\s*(?:\[\s*\{\s*["'](?:role|content|from|value)["']\s*:"""
                           r"""|\{\s*["'](?:role|from)["']\s*:\s*["'](?:user|human|system|assistant|gpt|model)["']\s*,)""")
"""A list of messages or one message, as JSON or as Python shows it."""
SIGNS = "[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
"""What a spreadsheet takes for a formula's beginning; the last four are full-width, which East Asian ones take alike."""

CHATML_MARK = "<|im_start|>"
_OTHER_START = re.compile(
    r"\s*(?:(?:User|USER|user)\s*:.*\n\s*(?:Assistant|ASSISTANT|assistant|Bot|AI)\s*:"
    r"|(?:Below is an instruction.*?)?### (?:Instruction|Human|User)\s*:.*### (?:Response|Assistant)\s*:)", re.S)
_MAY_START = re.compile(r"\s*[HS\[{UuB#]")
_OTHER_MARKS = ("[INST]", "<|start_header_id|>", "<start_of_turn>", "<extra_id_1>", "<|user|>", "<|assistant|>", "<｜User｜>",
                "<|message|>", "<|end_of_turn|>", "<|START_OF_TURN_TOKEN|>", "<|prompter|>", "[|Human|]")


def foreign_format(text: str) -> bool:
    """Whether a text is a dialogue in a format that is not read: Llama, Gemma, `User: … Assistant: …`, Alpaca's template."""
    return any(mark in text for mark in _OTHER_MARKS) or _OTHER_START.match(text) is not None


def is_dialogue(text: str) -> bool:
    """Whether an importer would take a text for turns, or refuse it, instead of reading it as one message."""
    if "<" in text or "[" in text:
        return (CHATML_MARK in text or HUMAN_TURN.match(text) is not None or JSON_MESSAGES.match(text) is not None
                or foreign_format(text))
    return _MAY_START.match(text) is not None and (HUMAN_TURN.match(text) or _OTHER_START.match(text)
                                                     or JSON_MESSAGES.match(text)) is not None

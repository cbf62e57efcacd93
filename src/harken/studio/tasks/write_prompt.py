"""Write a prompt: plain, few-shot with examples, or for a user's use case (InstructGPT's three kinds)."""

from __future__ import annotations

from collections.abc import Sequence

from harken.studio.tasks import MAX_CHARS, PROMPT_KINDS, Json, Trial, WritingTask
from harken.web.errors import ApiError
from harken.web.json_schema import Schema, array, enum, obj, text


class WritePrompt(WritingTask):
    title = "Write a prompt"
    hint = "plain, few-shot, or for a use case"
    record = "prompt"
    place = 4
    writes_prompt = True
    trial = Trial({"ask": {"text": "Ask for a colour."}}, {"kind": "plain", "text": "Name a colour.", "examples": []}, "prompts",
                  {"prompt": "Name a colour."})

    def form(self) -> Json:
        return {**super().form(), "prompt_kinds": list(PROMPT_KINDS)}

    def answer(self, form: Json, k: int) -> tuple[dict[str, Schema], tuple[str, ...]]:
        example = obj({"query": text(MAX_CHARS, 1), "response": text(MAX_CHARS, 1)})
        fields, _ = super().answer(form, k)
        return {**fields, "kind": enum(*form["prompt_kinds"]), "examples": array(example, 0, 9)}, ("examples",)

    def read(self, form: Json, texts: Sequence[str], order: Sequence[int], answer: Json) -> Json:
        written, examples = self.written(answer), answer.get("examples", [])
        if answer["kind"] == "few_shot" and len(examples) < 2:
            raise ApiError("bad_answer", f"A few-shot prompt needs 2 to 9 examples, found {len(examples)}.")
        if answer["kind"] != "few_shot" and examples:
            raise ApiError("bad_answer", f'A prompt of the kind "{answer["kind"]}" has no examples.')
        return {"kind": answer["kind"], "text": written, "examples": examples}

    def shown(self, payload: Json, order: Sequence[int]) -> Json:
        return {"kind": payload["kind"], "text": payload["text"], "examples": payload["examples"]}

    def prompt(self, payload: Json) -> Json:
        """A few-shot prompt's text is the instruction, then its examples."""
        words = payload["text"]
        if payload["examples"]:
            pairs = "\n\n".join(f"Query: {e['query']}\nResponse: {e['response']}" for e in payload["examples"])
            words = f"{words}\n\n{pairs}"
        body: Json = {"prompt": words}
        if payload["use_case"]:
            body["use_case"] = payload["use_case"]
        if payload["kind"] != "plain":
            body["kind"] = payload["kind"]
        if payload["prompt_flags"]:
            body["tags"] = payload["prompt_flags"]
        return body


TASK = WritePrompt()

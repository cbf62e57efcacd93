"""The server's own description, OpenAPI 3.1: what it takes, and nothing that it would refuse by name."""

from __future__ import annotations

from typing import Any

from harken.core.version import __version__
from harken.serve.feedback import KINDS
from harken.web.json_schema import Schema, array, enum, integer, obj, text

Json = dict[str, Any]
NUMBER: Schema = {"type": "number"}
ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": {
    "type": "object", "required": ["message", "type", "param", "code"], "properties": {
        "message": {"type": "string"}, "type": {"type": "string"}, "param": {"type": ["string", "null"]},
        "code": {"type": ["string", "null"]}}}}}
USAGE: Schema = {"type": "object", "required": ["prompt_tokens", "completion_tokens", "total_tokens"], "properties": {
    name: {"type": "integer", "minimum": 0} for name in ("prompt_tokens", "completion_tokens", "total_tokens")}}


def description(model: str) -> Json:
    """`model` is a name that answers, as the example."""
    common: Json = {
        "model": {"type": "string", "examples": [model]}, "stream": {"type": "boolean"},
        "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}, "additionalProperties": False},
        "n": integer(1, 128), "stop": {"anyOf": [text(1000, 1), array(text(1000, 1), 0, 4)]},
        "max_tokens": {"type": "integer", "minimum": 1}, "temperature": {**NUMBER, "minimum": 0, "maximum": 2},
        "top_p": {**NUMBER, "exclusiveMinimum": 0, "maximum": 1}, "seed": {"type": "integer"},
        "logit_bias": {"type": "object", "additionalProperties": {**NUMBER, "minimum": -100, "maximum": 100}},
        "user": text(200), "safety_identifier": text(200)}
    part = obj({"type": enum("text"), "text": {"type": "string"}})
    message = obj({"role": enum("system", "developer", "user", "assistant"),
                   "content": {"anyOf": [{"type": "string"}, array(part, 1, 100)]}})
    chat = _body(common | {"messages": array(message, 1, 1000), "max_completion_tokens": {"type": "integer", "minimum": 1},
                           "logprobs": {"type": "boolean"}, "top_logprobs": integer(0, 20)}, ["model", "messages"])
    ids = array({"type": "integer", "minimum": 0}, 1, 100_000)
    completion = _body(common | {"prompt": {"anyOf": [{"type": "string"}, ids, array({"type": "string"}, 1, 128),
                                                      array(ids, 1, 128)]},
                                 "echo": {"type": "boolean"}, "logprobs": integer(0, 20),
                                 "return_token_ids": {"type": "boolean"}}, ["model"])
    answer: Json = {"type": "object", "required": ["id", "object", "created", "model", "choices", "usage"], "properties": {
        "usage": USAGE, "choices": {"type": "array"}, "id": {"type": "string"}}}
    other = {"type": "object", "required": ["id", "token"], "properties": {
        "id": {"type": "string"}, "choice": integer(0, 999), "token": {"type": "string"}}}
    said = _body({"id": text(100), "choice": integer(0, 999), "token": text(2000), "kind": enum(*KINDS),
                  "value": {"anyOf": [{"type": "boolean"}, NUMBER, {"type": "string"}, {"type": "null"}]}, "over": other,
                  "order": array(integer(0, 1), 2, 2), "comment": text(10_000, 1), "client_id": text(100, 1),
                  "seconds": {**NUMBER, "minimum": 0}, "finished_reading": {"type": "boolean"}, "consent": {"type": "boolean"}},
                 ["id", "token", "kind", "value"])
    stored: Json = {"type": "object", "required": ["id", "kind", "value", "stored", "replaces"]}
    anything: Json = {"type": "object"}
    number = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    page = [{"name": n, "in": "query", "required": False, "schema": integer(low, most)}
            for n, low, most in (("after", 0, 2**53), ("limit", 1, 500))]
    token = {"name": "X-Harken-Feedback", "in": "header", "required": False, "schema": {"type": "string", "pattern": "^[ -~]*$"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Harken serve", "version": __version__, "description":
                 "OpenAI's chat and text completions, and feedback on their answers. Other fields than these are refused."},
        "servers": [{"url": "/"}], "security": [{"key": []}],
        "paths": {
            "/v1/chat/completions": {"post": _operation("chat", "Answer a conversation", answer, chat, stream=True)},
            "/v1/completions": {"post": _operation("completions", "Continue texts", answer, completion, stream=True)},
            "/v1/models": {"get": _operation("models", "The models served", anything)},
            "/v1/models/{model}": {"get": _operation("model", "One model", anything, parameters=[name])},
            "/v1/feedback": {
                "post": _operation("give_feedback", "Judge an answer; null takes it back", stored, said, open_to_all=True),
                "get": _operation("list_feedback", "What you said", anything, parameters=page)},
            "/v1/feedback/{id}": {"delete": _operation("withdraw_feedback", "Take one judgment back", stored,
                                                       parameters=[number, token])},
            "/health": {"get": _operation("health", "Whether it answers", anything, open_to_all=True)}},
        "components": {"schemas": {"Error": ERROR}, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}}


def _body(properties: Json, required: list[str]) -> Json:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _operation(name: str, summary: str, answer: Json, body: Json | None = None, parameters: list[Json] | None = None,
               stream: bool = False, open_to_all: bool = False) -> Json:
    content: Json = {"application/json": {"schema": answer}}
    if stream:
        content["text/event-stream"] = {}
    failure = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}, "description": "An error."}
    operation: Json = {"operationId": name, "summary": summary, "parameters": parameters or [], "responses": {
        "200": {"description": "Done.", "content": content},
        **{str(code): failure for code in (400, 401, 403, 404, 405, 408, 409, 413, 415, 429, 502, 503)}}}
    if open_to_all:
        operation["security"] = []
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation

"""What OpenTelemetry hears of a server: answers as spans, judgments as events, no word of anybody's."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("uvicorn")
pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from harken.cli.main import main
from harken.serve.telemetry import Telemetry
from serve_site import Served


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """A server, its spans and its events."""
    spans, events = InMemorySpanExporter(), InMemoryLogRecordExporter()
    tracers, loggers = TracerProvider(), sdk_logs.LoggerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    loggers.add_log_record_processor(SimpleLogRecordProcessor(events))
    told = Telemetry(tracers.get_tracer("t"), loggers.get_logger("t"))
    site = Served(folder=tmp_path_factory.mktemp("telemetry"), telemetry=told)
    yield site, spans, events
    site.stop()


def test_an_answer_is_a_span_and_a_judgment_an_event(heard):
    site, spans, events = heard
    status, body = site.chat("My secret", max_tokens=5, temperature=0.5, seed=3)[:2]
    assert status == 200
    (span,) = spans.get_finished_spans()
    assert span.name == "chat toy" and span.status.is_unset
    expected = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "toy", "gen_ai.request.max_tokens": 5,
                "gen_ai.request.temperature": 0.5, "gen_ai.request.seed": 3, "gen_ai.response.id": body["id"],
                "gen_ai.response.finish_reasons": (body["choices"][0]["finish_reason"],),
                "gen_ai.usage.input_tokens": body["usage"]["prompt_tokens"],
                "gen_ai.usage.output_tokens": body["usage"]["completion_tokens"]}
    assert {name: span.attributes[name] for name in expected} == expected
    assert 0 < span.end_time - span.start_time < 60e9
    right = {"id": body["id"], "choice": 0, "token": body["harken"]["feedback"][0], "comment": "My comment"}
    for value in (True, None):
        assert site.call("POST", "/v1/feedback", {**right, "kind": "thumb", "value": value})[0] == 200
    refused = site.call("POST", "/v1/feedback", {**right, "kind": "thumb", "value": None})
    said = [r.log_record for r in events.get_finished_logs()]
    assert refused[0] == 409 and [r.event_name for r in said] == ["gen_ai.evaluation.result"] * 2
    first, second = (dict(r.attributes) for r in said)
    common = {"gen_ai.evaluation.name": "thumb", "gen_ai.response.id": body["id"], "harken.choice": 0}
    assert first == {**common, "gen_ai.evaluation.score.value": 1.0}
    assert second == {**common, "gen_ai.evaluation.score.label": "withdrawn"}
    everything = span.to_json() + "".join(r.to_json() for r in events.get_finished_logs())
    for word in ("My secret", "My comment", body["choices"][0]["message"]["content"], right["token"]):
        assert word not in everything


def test_without_a_provider_nobody_would_hear(capsys):
    assert main(["serve", "--model", "toy", "--telemetry", "--port", "0"]) == 2
    assert "opentelemetry-instrument" in capsys.readouterr().err

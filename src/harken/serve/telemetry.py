"""OpenTelemetry on request: a span an answer, and `gen_ai.evaluation.result` for what people say of it.

    opentelemetry-instrument harken serve --telemetry --model runs/rloo --db feedback.db

Names are those of the semantic conventions for generative AI (status: development). As the conventions advise for libraries, only
the API is used here: where spans go, OTEL_… variables say. No prompt, no answer, no comment and no name of a person is in any.
"""

from __future__ import annotations

import time
from typing import Any

from harken.core.errors import UserError
from harken.serve.exchange import Exchange

HOW = "pip install opentelemetry-distro opentelemetry-exporter-otlp; then: opentelemetry-instrument harken serve --telemetry …"


class Telemetry:
    """`tracer` and `logger` are OpenTelemetry's; without them those that the process was given. Raises `UserError` where there
    are none: nobody would hear."""

    def __init__(self, tracer: Any = None, logger: Any = None) -> None:
        try:
            from opentelemetry import _logs, trace
        except ImportError:
            raise UserError("--telemetry needs OpenTelemetry.", HOW) from None
        if tracer is None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            raise UserError("No OpenTelemetry provider is set: the spans would go nowhere.", HOW)
        self.tracer, self.logger = tracer or trace.get_tracer("harken"), logger or _logs.get_logger("harken")
        self.error, self.record = trace.StatusCode.ERROR, _logs.LogRecord

    def answered(self, exchange: Exchange) -> None:
        """A span of an exchange that is over, from the request to its last token."""
        job, usage = exchange.parts[0].job, exchange.usage()
        operation = "chat" if exchange.kind == "chat" else "text_completion"
        given: dict[str, Any] = {
            "gen_ai.operation.name": operation, "gen_ai.provider.name": "harken", "gen_ai.request.model": exchange.model,
            "gen_ai.request.choice.count": len(exchange.choices), "gen_ai.request.max_tokens": job.max_tokens,
            "gen_ai.request.temperature": job.temperature, "gen_ai.request.top_p": job.top_p,
            "gen_ai.request.seed": job.seed % 2**63, "gen_ai.request.stream": job.stream, "gen_ai.response.id": exchange.id,
            "gen_ai.response.finish_reasons": [c.end for c in exchange.choices if c.end],
            "gen_ai.usage.input_tokens": usage["prompt_tokens"], "gen_ai.usage.output_tokens": usage["completion_tokens"]}
        end = time.time_ns()
        began = end - int((time.monotonic() - exchange.began) * 1e9)
        span = self.tracer.start_span(f"{operation} {exchange.model}", start_time=began,
                                      attributes={k: v for k, v in given.items() if v is not None})
        if not exchange.done:
            span.set_attribute("error.type", "incomplete")
            span.set_status(self.error)
        span.end(end)

    def judged(self, said: Any, stored: Any) -> None:
        """The event of a judgment that was stored, or of one taken back."""
        value = stored["value"]
        number = float(value) if isinstance(value, bool | int | float) else None
        label = "withdrawn" if value is None else value if stored["kind"] in ("preference", "use") else None
        given = {"gen_ai.evaluation.name": stored["kind"], "gen_ai.evaluation.score.value": number,
                 "gen_ai.evaluation.score.label": label, "gen_ai.response.id": said.get("id") or said.get("inference_id"),
                 "harken.choice": said.get("choice", 0)}
        self.logger.emit(self.record(timestamp=time.time_ns(), event_name="gen_ai.evaluation.result",
                                     attributes={k: v for k, v in given.items() if v is not None}))

"""Spans and metrics of cells in OpenTelemetry's terms. Needs the extra ``otel``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Status, StatusCode

from mxc_kernel import __version__
from mxc_kernel.audit.telemetry import CellSpan

__all__ = ["OtlpExporter", "otlp"]

_TIMEOUT = 5  # seconds for one request to the collector
_EVERY = 10_000  # milliseconds between two exports of the metrics


def otlp(endpoint: str, session: Mapping[str, Any]) -> OtlpExporter:
    """Return an exporter to a collector.

    Headers, certificates and compression come from OpenTelemetry's usual variables.

    Args:
        endpoint: the collector's address, such as ``http://127.0.0.1:4318``.
        session: the trail's name and its first record's fields.
    """
    base = endpoint.rstrip("/")
    spans = OTLPSpanExporter(endpoint=f"{base}/v1/traces", timeout=_TIMEOUT)
    metrics = OTLPMetricExporter(endpoint=f"{base}/v1/metrics", timeout=_TIMEOUT)
    reader = PeriodicExportingMetricReader(metrics, _EVERY, export_timeout_millis=_TIMEOUT * 1000)
    return OtlpExporter(spans, reader, session)


class OtlpExporter:
    """Makes spans and metrics of cells.

    Args:
        spans: where spans go.
        reader: collects the metrics.
        session: the trail's name and its first record's fields.
    """

    def __init__(
        self, spans: SpanExporter, reader: MetricReader, session: Mapping[str, Any]
    ) -> None:
        resource = Resource.create(
            {
                "service.name": "mxc-kernel",
                "service.version": __version__,
                "service.instance.id": session["session"],
            }
        )
        self._traces = TracerProvider(resource=resource)
        self._traces.add_span_processor(BatchSpanProcessor(spans))
        self._metrics = MeterProvider([reader], resource=resource)
        self._tracer = self._traces.get_tracer("mxc_kernel", __version__)
        attributes = _known(
            {f"mxc.{name}": session.get(name) for name in ("session", "notebook", "run")}
        )
        self._session = self._tracer.start_span("session", attributes=attributes)
        meter = self._metrics.get_meter("mxc_kernel", __version__)
        self._cells = meter.create_counter("mxc.cells", unit="{cell}")
        self._duration = meter.create_histogram("mxc.cell.duration", unit="s")
        self._cpu = meter.create_counter("mxc.cell.cpu", unit="s")
        self._output = meter.create_counter("mxc.output", unit="By")
        self._denials = meter.create_counter("mxc.denials", unit="{denial}")
        self._redactions = meter.create_counter("mxc.redactions", unit="{match}")
        self._dropped = meter.create_counter("mxc.dropped", unit="{message}")
        self._relaunches = meter.create_counter("mxc.relaunches", unit="{sandbox}")

    def cell(self, span: CellSpan) -> None:
        """Export a cell."""
        began, ended, pending, finished = span
        error = finished["error"]
        outcome = {"mxc.outcome": error["by"] if error else "ok"}
        made = self._tracer.start_span(
            "cell",
            context=trace.set_span_in_context(self._session),
            start_time=began,
            attributes=_attributes(pending, finished),
        )
        if error:
            made.set_status(Status(StatusCode.ERROR, error["kind"]))
        made.end(ended)
        self._cells.add(1, outcome)
        self._duration.record(finished["duration"], outcome)
        self._cpu.add(finished["cpu"] or 0.0)
        for kind, figures in finished["output"].items():
            for what in ("sent", "dropped"):
                self._output.add(figures[what], {"mxc.kind": kind, "mxc.what": what})
        self._denials.add(len(finished["denials"]))
        self._relaunches.add(pending["relaunches"] + finished["relaunches"])
        for counter, counts in (
            (self._redactions, finished["redactions"]),
            (self._dropped, finished["dropped"]),
        ):
            for name, count in counts.items():
                counter.add(count, {"mxc.name": name})

    def close(self) -> None:
        """End the session's span, and send what is left."""
        self._session.end()
        self._traces.shutdown()
        self._metrics.shutdown(timeout_millis=_TIMEOUT * 1000)


def _attributes(pending: Mapping[str, Any], finished: Mapping[str, Any]) -> dict[str, Any]:
    sandbox = pending["sandbox"]
    return _known(
        {
            "mxc.cell.number": pending["cell"]["number"],
            "mxc.cell.id": pending["cell"]["id"],
            "mxc.code.sha256": pending["code"]["sha256"],
            "mxc.code.length": pending["code"]["length"],
            "mxc.ceiling": pending["ceiling"]["sha256"],
            "mxc.policy": pending["policy"]["effective"],
            "mxc.sandbox": sandbox["number"],
            "mxc.sandbox.backend": sandbox["backend"],
            "mxc.sandbox.executable": sandbox["sha256"],
            "mxc.sandbox.attested": sandbox["attested"],
            "mxc.cpu": finished["cpu"],
            "mxc.memory_peak": finished["memory_peak"],
            "mxc.denials": len(finished["denials"]),
            "mxc.redactions": sum(finished["redactions"].values()),
        }
    )


def _known(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is not known: OpenTelemetry has no null."""
    return {name: value for name, value in attributes.items() if value is not None}

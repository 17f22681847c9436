"""What leaves the trail's folder: anchors, telemetry; and what is deleted from it."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mxc_kernel.audit.facts import Source
from mxc_kernel.audit.telemetry import Telemetry
from mxc_kernel.audit.verify import verify
from mxc_kernel.policy import Audit

from .conftest import journal, outcome, trail_of, under, write_session


def test_a_file_gets_anchors_that_hold(tmp_path: Path) -> None:
    anchors = tmp_path / "anchors"
    write_session(tmp_path, audit=Audit(anchor_file=str(anchors)))
    lines = anchors.read_bytes().splitlines()
    assert len(lines) == 2  # at the beginning and at the end
    assert verify(str(trail_of(tmp_path)), anchors=lines).ok
    last = json.loads(lines[-1])
    path = trail_of(tmp_path) / "sessions" / f"{last['session']}.jsonl"
    assert last["records"] == path.read_bytes().count(b"\n")
    assert last["index"]["entries"] == 2


def test_a_command_gets_anchors_and_nothing_of_the_kernels_environment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"import os,sys; open({str(out)!r},'a').write(sys.stdin.read()+repr(dict(os.environ)))"
    write_session(tmp_path, audit=Audit(anchor_command=(sys.executable, "-I", "-c", code)))
    text = out.read_text()
    assert '"records":' in text
    assert "XDG_STATE_HOME" not in text
    lines = [line.encode() for line in text.replace("{'", "\n{'").splitlines()]
    assert verify(str(trail_of(tmp_path)), anchors=lines).ok


def test_anchors_are_put_while_records_are_written(tmp_path: Path) -> None:
    anchors = tmp_path / "anchors"

    async def write() -> None:
        made = journal(tmp_path, Audit(anchor_file=str(anchors), anchor_every=0.01))
        begun = made.begin(Source("x"), under())
        while anchors.read_bytes().count(b"\n") < 2:
            await asyncio.sleep(0.005)
        made.finish(begun, outcome())
        last = json.loads(anchors.read_bytes().splitlines()[-1])
        assert last["records"] > begun.record
        made.close()

    asyncio.run(write())
    assert verify(str(trail_of(tmp_path)), anchors=anchors.read_bytes().splitlines()).ok


@pytest.mark.parametrize(
    "audit",
    [
        Audit(anchor_file="/nowhere/at/all"),
        Audit(anchor_command=("/nowhere/at/all",)),
        Audit(anchor_command=(sys.executable, "-c", "raise SystemExit(3)")),
    ],
)
def test_an_anchor_that_fails_is_recorded_and_stops_nothing(tmp_path: Path, audit: Audit) -> None:
    async def write() -> None:
        made = journal(tmp_path, audit)
        begun = made.begin(Source("x"), under())
        end = time.monotonic() + 60
        while not any(b'"kind":"anchor"' in p.read_bytes() for p in trails(tmp_path)):
            assert time.monotonic() < end
            assert made._outlets is not None
            made._outlets.anchor()
            await asyncio.sleep(0.01)
        made.finish(begun, outcome())
        made.close()

    asyncio.run(write())
    (path,) = trails(tmp_path)
    assert path.read_bytes().count(b'"kind":"anchor"') == 1
    assert verify(str(trail_of(tmp_path))).ok


def trails(root: Path) -> list[Path]:
    return list((trail_of(root) / "sessions").iterdir())


def test_old_sessions_are_deleted_and_the_index_says_so(tmp_path: Path) -> None:
    old = write_session(tmp_path, 6, audit=Audit(rotate=4096)).session
    (kept,) = {str(write_session(tmp_path).session)}
    for path in trails(tmp_path):
        if path.name.startswith(str(old)):
            os.utime(path, (1e9, 1e9))
    newest = str(write_session(tmp_path, audit=Audit(retention=3600.0)).session)
    assert {path.name.partition(".")[0] for path in trails(tmp_path)} == {kept, newest}
    report = verify(str(trail_of(tmp_path)))
    assert report.ok, report.findings
    assert report.sessions == 3


def test_a_session_that_is_being_written_is_not_old(tmp_path: Path) -> None:
    made = write_session(tmp_path, end=False)
    (path,) = trails(tmp_path)
    os.utime(path, (1e9, 1e9))
    write_session(tmp_path, audit=Audit(retention=3600.0))
    assert path.exists()
    made.close()


# --- telemetry ------------------------------------------------------------------------------------


class Collector:
    """An OpenTelemetry collector on loopback, which keeps what it gets."""

    def __init__(self) -> None:
        self.bodies: dict[str, list[bytes]] = {"/v1/traces": [], "/v1/metrics": []}
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                collector.bodies[self.path].append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_words: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> list[Any]:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        found = []
        for body in self.bodies["/v1/traces"]:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    found += scope.spans
        return found

    def metrics(self) -> dict[str, Any]:
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
            ExportMetricsServiceRequest,
        )

        found = {}
        for body in self.bodies["/v1/metrics"]:
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                for scope in resource.scope_metrics:
                    found.update({metric.name: metric for metric in scope.metrics})
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_cells_reach_a_collector(tmp_path: Path, collector: Collector) -> None:
    made = journal(tmp_path, Audit(otel=collector.address))
    where = under("/data")
    evidence = {"denials": [{"kind": "filesystem", "path": "/etc/secret"}]}
    made.finish(made.begin(Source("x = 1"), where), outcome())
    made.finish(
        made.begin(Source("y"), where),
        outcome(status="error", error="KeyError", evidence=evidence, redactions={"aws": 2}),
    )
    assert made._outlets is not None
    telemetry = made._outlets.telemetry
    assert telemetry is not None
    made.close()
    telemetry._thread.join(60)  # the import of the SDK may take longer than a kernel waits
    spans = collector.spans()
    assert sorted(span.name for span in spans) == ["cell", "cell", "session"]
    failed = next(span for span in spans if span.status.message == "KeyError")
    attributes = {item.key: item.value for item in failed.attributes}
    assert attributes["mxc.denials"].int_value == 1
    assert attributes["mxc.cell.number"].int_value == 2
    assert failed.end_time_unix_nano >= failed.start_time_unix_nano > 10**18
    metrics = collector.metrics()
    assert sum(point.as_int for point in metrics["mxc.cells"].sum.data_points) == 2
    assert [p.as_int for p in metrics["mxc.redactions"].sum.data_points] == [2]
    text = str(spans) + str(metrics)
    assert "/etc" not in text
    assert "/data" not in text


def test_a_collector_that_hangs_holds_up_nothing() -> None:
    stuck, release = threading.Event(), threading.Event()

    class Hanging:
        def cell(self, span: object) -> None:
            stuck.set()
            release.wait(60)

        def close(self) -> None:
            pass

    telemetry = Telemetry(Hanging)
    span = (0, 1, {}, {})
    telemetry.put(span)
    assert stuck.wait(60)
    began = time.monotonic()
    for _ in range(5000):
        telemetry.put(span)
    telemetry.close()
    assert time.monotonic() - began < 30  # it would be for ever
    assert telemetry.lost >= 4000
    release.set()


def test_without_the_extra_cells_run_and_a_line_says_what_to_do(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> Any:
        raise ImportError("No module named 'opentelemetry'")

    telemetry = Telemetry(missing)
    telemetry._thread.join(60)
    telemetry.put((0, 1, {}, {}))
    telemetry.close()
    assert "mxc-kernel[otel]" in caplog.text

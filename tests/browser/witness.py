"""Sees what an attack reaches, where it arrives: at real servers.

A browser driver's own events miss what sandboxed frames and workers ask for. Every attack carries
its mark (``pwned.<attack>.<stage>``) in each address it tries; a mark that arrives is the evidence.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.browser.lab import JupyterLab

__all__ = ["OtherHost", "Witness", "mark"]

_MARK = re.compile(r"pwned\.([a-z0-9-]+)\.([a-z]+)")
# What is asked for by its ending, for attacks that load a second step.
_ANSWERS = {
    ".json": ("application/json", b"[]"),
    ".css": ("text/css", b""),
    ".js": ("text/javascript", b"export default {}"),
}


def mark(attack: str, stage: str) -> str:
    """Return what stands in every address that an attack tries at a stage."""
    return f"pwned.{attack}.{stage}"


class OtherHost:
    """An HTTP server that stands for any other host, on a free port of 127.0.0.1.

    It answers with "no content", so that a page that is sent there stays where it is.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                seen.append(f"{self.command} {self.path} {self.headers.get('Referer', '')}")
                ending = next((it for it in _ANSWERS if it in self.path), None)
                kind, body = _ANSWERS[ending] if ending else ("", b"")
                self.send_response(200 if ending else 204)
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Access-Control-Allow-Headers", "*")
                self.send_header("Cache-Control", "no-store")  # each phase asks anew
                if ending:
                    self.send_header("Content-Type", kind)
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = _answer  # noqa: N815

            def log_message(self, *_arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_arguments: object) -> None:
                """Say nothing: a page that goes away breaks off what it asked for."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> OtherHost:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Witness:
    """What arrived at the Jupyter server and at the other host since it was last asked.

    Args:
        lab: the server that an output must not reach.
        other: any other host.
    """

    def __init__(self, lab: JupyterLab, other: OtherHost) -> None:
        self._lab = lab
        self._other = other
        self._told = (0, 0)

    def marks(self, stage: str) -> Mapping[str, set[str]]:
        """Return attack to what arrived of it in the current phase."""
        found: dict[str, set[str]] = {}
        for line in self._arrived():
            for attack, where in _MARK.findall(line):
                if where == stage:
                    found.setdefault(attack, set()).add(line[:200])
        return found

    def next_phase(self) -> None:
        """Forget what arrived until now."""
        self._told = (len(self._lab.requests()), len(self._other.seen))

    def _arrived(self) -> Iterator[str]:
        at_lab, at_other = self._told
        for asked in self._lab.requests()[at_lab:]:
            yield f"server: {asked['method']} {asked['uri']} {asked['referer']}"
        for line in self._other.seen[at_other:]:
            yield f"other host: {line}"

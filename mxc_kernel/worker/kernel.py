"""ipykernel itself, bound to the pipe instead of to network sockets."""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from mxc_kernel.wire import Channel
from mxc_kernel.worker import denials, magics
from mxc_kernel.worker.lean import import_kernel_application
from mxc_kernel.worker.packages import SessionPackages
from mxc_kernel.worker.settings import parse_stubs

kernelapp = import_kernel_application()

from ipykernel.ipkernel import IPythonKernel  # noqa: E402
from jupyter_client.session import Session  # noqa: E402
from tornado.ioloop import IOLoop  # noqa: E402
from traitlets import Any as AnyTrait  # noqa: E402
from traitlets import default  # noqa: E402
from traitlets.config import Config  # noqa: E402

from mxc_kernel.worker.backlog import OutputThread  # noqa: E402
from mxc_kernel.worker.channels import IOPubSocket, Pump  # noqa: E402
from mxc_kernel.worker.packing import fast_pictures  # noqa: E402
from mxc_kernel.worker.state import StateExchange  # noqa: E402
from mxc_kernel.worker.streams import remember_less  # noqa: E402

if TYPE_CHECKING:
    from mxc_kernel.worker.settings import Settings
    from mxc_kernel.worker.transport import Transport

__all__ = ["PipeApp", "SandboxedKernel", "run"]

_DRAIN_SECONDS = 5.0  # how long the last replies may take into a pipe that the host still reads


class SandboxedKernel(IPythonKernel):
    """IPython's kernel, told by the host which number a cell has and which magics are done."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stubs = magics.Stubs(self.shell)
        self.evidence = denials.Collector(self.shell)
        self.state: StateExchange | None = None

    async def dispatch_shell(self, msg: Any, /, *args: Any, **kwargs: Any) -> None:
        """Handle a message as ipykernel does, unless it is our own call to carry the state."""
        if self.state is None or not self.state.is_call(msg):
            await super().dispatch_shell(msg, *args, **kwargs)
            return
        self.pre_handler_hook()  # interruptible like a cell: a reducer may take for ever
        try:
            self.state.work()
        finally:
            self.post_handler_hook()

    async def execute_request(self, stream: Any, ident: Any, parent: dict[str, Any]) -> None:
        """Run a cell as ipykernel does, after taking the host's part out of the metadata."""
        orders = parent.get("metadata", {}).pop("mxc", None) or {}
        self._set_execution_count(orders.get("execution_count"))
        self.evidence.begin()
        with self.stubs.handled(orders.get("handled", ())):
            await super().execute_request(stream, ident, parent)

    def finish_metadata(
        self, parent: Any, metadata: dict[str, Any], reply_content: dict[str, Any]
    ) -> dict[str, Any]:
        """Attach the evidence of what the sandbox denied, for the host to explain."""
        metadata = super().finish_metadata(parent, metadata, reply_content)
        if found := self.evidence.take():
            metadata["mxc"] = found
        return metadata

    def _set_execution_count(self, count: object) -> None:
        if not isinstance(count, int) or count < 1:
            return
        shell: Any = self.shell
        shell.execution_count = count
        # In[count] must be this cell even when the host counted cells that never came here.
        history = shell.history_manager
        for inputs in (history.input_hist_parsed, history.input_hist_raw):
            inputs.extend([""] * (count - len(inputs)))


class PipeApp(kernelapp.IPKernelApp):  # type: ignore[misc, name-defined]
    """ipykernel's application with in-process sockets, a pump to the pipe and no files."""

    pipe = AnyTrait()
    blocking_class = AnyTrait()  # stock resolves a client class here, which costs its import

    @default("kernel_class")
    def _sandboxed_kernel(self) -> type:
        return SandboxedKernel

    @default("outstream_class")
    def _cell_stream(self) -> str:
        if os.name == "posix":
            return "mxc_kernel.worker.streams.CellStream"
        return "ipykernel.iostream.OutStream"

    def _try_bind_socket(self, s: Any, port: int) -> int:  # noqa: ARG002
        self._bound = getattr(self, "_bound", 0) + 1
        s.bind(f"inproc://mxc-{self._bound}")
        return self._bound

    def parse_command_line(self, argv: list[str] | None = None) -> None:
        """Parse what the kernelspec gave for ipykernel; building the parser alone costs 10 ms."""
        if argv:
            super().parse_command_line(argv)

    def init_path(self) -> None:
        """Let cells import from their folder, as ipykernel does.

        IPython would not, because of the ``-P`` that guards our own start. Like IPython, the
        standard library stays first.
        """
        if "" in sys.path or self.ignore_cwd:
            return
        sites = ("site-packages", "dist-packages")
        first = (i for i, entry in enumerate(sys.path) if os.path.basename(entry) in sites)
        sys.path.insert(next(first, 0), "")

    def init_poller(self) -> None:
        """Watch no parent: the end of the pipe is the end of this process."""

    def init_connection_file(self) -> None:
        """Have no connection file: nobody connects to this process."""

    def write_connection_file(self, **kwargs: Any) -> None:
        """Have no connection file."""

    def log_connection_info(self) -> None:
        """Print nothing; ipykernel reads the ports afterwards."""
        self._ports: dict[str, int] = {}

    def init_heartbeat(self) -> None:
        """Leave the heartbeat to the host, which sees this process live or die."""

    def init_iopub(self, context: Any) -> None:
        """Publish into the pipe, from ipykernel's own IOPub thread."""
        self.configure_tornado_logger()
        self.iopub_thread = OutputThread(IOPubSocket(context, self.pipe), pipe=False)
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket

    def init_sockets(self) -> None:
        """Bind ipykernel's sockets and prepare the pump; it starts once the kernel is there."""
        super().init_sockets()
        self.pump = Pump(
            self.context,
            self.pipe,
            {
                Channel.SHELL: self.shell_socket,
                Channel.CONTROL: self.control_socket,
                Channel.STDIN: self.stdin_socket,
            },
            self._on_frame,
        )

    def close(self) -> None:
        """Let the last replies out; the process ends right after, so nothing is torn down."""
        self.reset_io()
        self.iopub_thread.stop()
        for thread in (self.control_thread, getattr(self, "shell_channel_thread", None)):
            if thread is not None and thread.is_alive():
                thread.stop()
                thread.join(_DRAIN_SECONDS)
        self.pump.drain(_DRAIN_SECONDS)

    def _on_frame(self, channel: Channel, parts: list[bytes]) -> None:
        """Act on a frame that is none of Jupyter's; runs in the thread that reads the pipe."""
        if channel is Channel.SIGNAL and parts == [b"interrupt"]:
            _interrupt()
        elif channel is Channel.HELLO and len(parts) == 2 and parts[0] == b"magics":
            self.kernel.stubs.register(parse_stubs(parts[1]))
        elif channel is Channel.STATE:
            self.kernel.state.receive(parts, self.pump.post)


def _interrupt() -> None:
    """Interrupt the cell and what it started."""
    if os.name == "posix" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGINT)
    else:
        import _thread

        _thread.interrupt_main()


def _wake_loop_on_signals() -> None:
    """Make an interrupt reach a cell that awaits.

    ipykernel's handler asks the loop to cancel the cell, in a way that does not wake the loop: with
    nothing else to do, ``await asyncio.sleep(600)`` sleeps on (so it does in plain ipykernel 7.4).
    """
    reading, writing = socket.socketpair()
    for end in (reading, writing):
        end.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)

    def emptied(_fd: object, _events: int) -> None:
        reading.recv(4096)

    IOLoop.current().add_handler(reading, emptied, IOLoop.READ)


def run(transport: Transport, settings: Settings) -> None:
    """Run ipykernel until it is shut down."""
    app = PipeApp.instance(pipe=transport, log_level=logging.ERROR)
    app.session = Session(parent=app, key=b"")  # the pipe is private: nothing to sign for
    app.session.pack = fast_pictures(app.session.pack)
    app.update_config(Config({"HistoryManager": {"hist_file": settings.history}}))
    app.initialize(list(settings.argv))
    faulthandler.enable(file=transport.diagnostics)
    shell = app.shell
    remember_less(shell)
    if settings.scratch and os.name == "posix":
        packages = SessionPackages(settings.scratch)
        packages.prepare()
        packages.register(shell, app.kernel.evidence)
    shell.execution_count = settings.execution_count
    app.kernel.state = StateExchange(transport, shell, settings.scratch)
    _wake_loop_on_signals()
    app.pump.start()
    gc.freeze()  # what was loaded stays; collections need not look at it again
    gc.enable()
    app.start()
    sys.stdout.flush()

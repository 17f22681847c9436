"""Sandboxed kernels for nbclient: how each is started, what it may ask for, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import Dict, Unicode, default
from traitlets.config import Config

from mxc_kernel.kernelspec import NAME
from mxc_kernel.policy import CEILING_VARIABLE, START_VARIABLE, Ask, LayerText, Start

__all__ = ["SandboxedKernelManager", "client_options", "narrowing", "start_plain"]


class _OwnSpec(KernelSpecManager):
    """Knows this installation's kernel alone, whatever is registered under its name elsewhere."""

    environment = Dict(help="Variables for the kernel's host process.")

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002
        """Return how the kernel is started."""
        command = ["-E", "-P", "-m", "mxc_kernel.kernel", "-f", "{connection_file}"]
        return KernelSpec(
            argv=[sys.executable, *command],
            display_name="Python (MXC sandboxed)",
            language="python",
            interrupt_mode="message",
            # Jupyter would put variables in after a `$`.
            env={name: value.replace("$", "$$") for name, value in self.environment.items()},
        )


class SandboxedKernelManager(AsyncKernelManager):
    """Starts this installation's kernel with a connection that nobody else can reach.

    The sockets and the connection file, which holds the key to the kernel, are in a folder of their
    own below ``/tmp``: every sandbox has a ``/tmp`` of its own, and no ceiling can grant the
    host's.
    """

    ceiling = Unicode(help="Ceiling file in place of the user's.", config=True)
    start = Dict(help="What the kernel is asked at its start; see `start_plain`.", config=True)

    _private: str | None = None

    @default("kernel_name")
    def _kernel_name_default(self) -> str:
        return NAME

    @default("kernel_spec_manager")
    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return _OwnSpec(environment=self.variables, parent=self)

    @default("transport")
    def _transport_default(self) -> str:
        return "ipc"

    @default("connection_file")
    def _connection_file_default(self) -> str:
        return os.path.join(self.private_folder, "kernel.json")

    @property
    def private_folder(self) -> str:
        """The folder of this kernel, made when it is first asked for."""
        if self._private is None:
            # Not $TMPDIR, which a ceiling might grant.
            place = "/tmp" if os.name == "posix" else None  # noqa: S108
            self._private = tempfile.mkdtemp(prefix="mxc-kernel-run-", dir=place)
        return self._private

    @cached_property
    def variables(self) -> dict[str, str]:
        """What the kernel's environment has in addition to ours."""
        found = {CEILING_VARIABLE: os.path.abspath(self.ceiling)} if self.ceiling else {}
        if self.start:
            path = os.path.join(self.private_folder, "start.json")
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                json.dump(dict(self.start), file)
            found[START_VARIABLE] = path
        return found

    def drop(self) -> None:
        """Remove the private folder of a kernel that does not run."""
        if self._private is not None:
            shutil.rmtree(self._private, ignore_errors=True)
            self._private = None

    async def _async_cleanup_resources(self, restart: bool = False) -> None:
        await super()._async_cleanup_resources(restart=restart)
        if not restart:
            self.drop()

    cleanup_resources: Callable[..., Awaitable[None]] = _async_cleanup_resources

    async def wait_ended(self, timeout: float) -> bool:
        """Wait until the kernel's process has ended; false where it has not by then.

        Jupyter's own way is to look ten times a second, which is a tenth of a short notebook's
        whole time.

        Args:
            timeout: seconds.
        """
        pid = getattr(self.provisioner, "pid", None)
        if not pid:
            return True
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return True
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(fd, ended.set)
        try:
            await asyncio.wait_for(ended.wait(), timeout)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        return True


def start_plain(ask: Ask = Ask(), layers: tuple[LayerText, ...] = ()) -> dict[str, Any]:  # noqa: B008
    """Return the data for `SandboxedKernelManager.start`; empty where it says nothing.

    Args:
        ask: what the kernel's session asks for before its first cell.
        layers: further layers of the ceiling.
    """
    return Start(layers, ask).plain()


def narrowing(*, requests: bool, cell_timeout: float | None) -> tuple[LayerText, ...]:
    """Return the layer of the ceiling that a runner's own options come to.

    Args:
        requests: whether the notebook may ask for anything.
        cell_timeout: seconds that a cell may run; None for what the ceiling says.
    """
    lines = [] if requests else ['requests = "none"']
    if cell_timeout is not None:
        lines += ["[limits]", f'cell_timeout = "{max(1, round(cell_timeout * 1000))}ms"']
    return (LayerText("project", "\n".join(lines), "the options of the run"),) if lines else ()


def client_options(
    *,
    ceiling: str | None = None,
    readonly: tuple[str, ...] = (),
    readwrite: tuple[str, ...] = (),
    limits: Mapping[str, str | int] | None = None,
    requests: bool = True,
    cell_timeout: float | None = None,
) -> dict[str, Any]:
    """Return keyword arguments with which nbclient's own client runs a notebook in the sandbox.

        client = NotebookClient(notebook, **client_options(ceiling="ceiling.toml"))
        client.execute()

    Args:
        ceiling: ceiling file in place of the user's.
        readonly: paths to ask for before the first cell, to read.
        readwrite: paths to ask for, to read and write.
        limits: limits to ask for, as in a ceiling's ``[limits]``.
        requests: whether the notebook may ask for more with magics.
        cell_timeout: seconds that a cell may run, held by the kernel, so that the reply says so.
    """
    ask = Ask(tuple(readonly), tuple(readwrite), limits)
    layers = narrowing(requests=requests, cell_timeout=cell_timeout)
    options = {"start": start_plain(ask, layers), **({"ceiling": ceiling} if ceiling else {})}
    return {
        "kernel_manager_class": SandboxedKernelManager,
        "kernel_name": NAME,
        "config": Config(SandboxedKernelManager=options),
    }

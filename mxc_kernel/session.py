"""A sandboxed session: which policy is in force, and the child that runs under it.

The policy of a sandbox is fixed at launch, so a change of policy means a new child; the user's
names are carried over as opaque bytes. Knows frames, not Jupyter's messages.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from mxc_kernel.audit import folder
from mxc_kernel.child import Child
from mxc_kernel.errors import MxcKernelError, SandboxExecutionError, SandboxPolicyError
from mxc_kernel.hostfiles import exists_unlinked
from mxc_kernel.policy import (
    DEFAULT_LIMITS,
    Access,
    Ceiling,
    Limits,
    Policy,
    Redaction,
    Request,
    load_ceiling,
    stamp,
)
from mxc_kernel.starter import Launched, starter_here
from mxc_kernel.wire import Buffer, Channel

if TYPE_CHECKING:
    import asyncio

    from mxc_kernel.audit.facts import Sandbox, Under
    from mxc_kernel.audit.journal import Journal
    from mxc_kernel.carrying import Carrier, Snapshot
    from mxc_kernel.consumption import Consumption
    from mxc_kernel.denials import Finding
    from mxc_kernel.libraries import Libraries
    from mxc_kernel.magics import MagicContext, Throwaway
    from mxc_kernel.mxc.ahead import VerifiedAhead
    from mxc_kernel.mxc.enforcement import Crossing, Enforcement
    from mxc_kernel.spare import Spare
    from mxc_kernel.views import View

__all__ = ["Session"]

_REMEMBERED_DENIALS = 200  # cells whose evidence %denials can still show


class Session:
    """One kernel's sandbox over its life.

    Args:
        notebook_dir: the notebook's folder on the host.
        python: the child's interpreter; None for the ceiling's or the default one.
        arguments: command line for the child's IPKernelApp. It is as untrusted as the child.
        environ: the host's environment.
        executable: the verification of the executable, where it has begun already.
        connection_file: canonical path of this kernel's connection file; None if there is none.

    Attributes:
        request: what the session has asked for so far.
        on_frame: called with every frame of the child in force.
        on_exit: called when that child died by itself or was killed.
        on_replaced: called when a new child has taken over.
        on_guest_exit: called when a throwaway child died by itself or was killed.
        on_crossing: called with a limit that was passed and the cells that are to be stopped.
    """

    def __init__(
        self,
        *,
        notebook_dir: str,
        python: str | None = None,
        arguments: Sequence[str] = (),
        environ: Mapping[str, str] = os.environ,
        executable: VerifiedAhead | None = None,
        connection_file: str | None = None,
    ) -> None:
        self.request = Request()
        self.on_frame: Callable[[Channel, list[bytes]], None] = lambda _channel, _parts: None
        self.on_exit: Callable[[MxcKernelError], None] = lambda _error: None
        self.on_replaced: Callable[[], None] = lambda: None
        self.on_guest_exit: Callable[[MxcKernelError], None] = lambda _error: None
        self.on_crossing: Callable[[Crossing, Sequence[object]], None] = lambda _limit, _cells: None
        self._notebook_dir = notebook_dir
        self._environ = environ
        self._starter = starter_here(
            notebook_dir, python, arguments, environ, executable, connection_file
        )
        self._ceiling: Ceiling | None = None
        self._stamp: object = None
        self._child: Child | None = None
        self._launched: Launched | None = None
        self._clamped: tuple[Request, Policy] | None = None
        self._told: Launched | None = None  # whose missing mounts the user has been told of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._guest: Launched | None = None  # a throwaway child, while it runs its cell
        self._lost_for = ""  # what no cell was told
        self._denials: list[Mapping[str, object]] = []
        self._facts: Sandbox | None = None
        self._lost_child = False
        self._holding = False  # the frontends cannot take more output for now

    # All of them import what has to wait until the first child is launched.

    @cached_property
    def journal(self) -> Journal:
        """The audit trail of this session."""
        from mxc_kernel.audit.journal import Journal

        return Journal(self._environ, self._notebook_dir, lambda: self._open().settings.audit)

    @cached_property
    def _carrier(self) -> Carrier:
        from mxc_kernel.carrying import Carrier

        return Carrier()

    @cached_property
    def _spare(self) -> Spare:
        from mxc_kernel.spare import Spare

        return Spare(lambda: self._started(self.request), lambda: self.effective)

    @cached_property
    def _consumption(self) -> Consumption:
        from mxc_kernel.consumption import Consumption

        assert self._loop is not None
        return Consumption(
            self._loop,
            lambda crossing, cells: self.on_crossing(crossing, cells),
            self._end_idle,
        )

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Launch the first child, before the event loop and its imports exist.

        What goes wrong here is not raised: the first cell meets it again and tells the user.
        """
        with contextlib.suppress(MxcKernelError):
            folder.make(self._environ)  # or the sandbox could make it
            settings = self._open().settings
            self._launched = self._starter.start(self._clamp(self.request), settings)
            self._child = self._launched.child

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Handle frames from now on."""
        self._loop = loop
        if self._child is not None:
            self._adopt(self._child)
            self._child.attach(loop)
            _tell_magics(self._child)

    def close(self) -> None:
        """End the child and give everything back."""
        self._spare.close()
        self._carrier.close()
        if self._guest is not None:
            self._guest.child.close()
        if self._child is not None:
            self._child.close()
            self._child = None
        if self._loop is not None:
            self._consumption.close()
        self._starter.close()
        self.journal.close()

    async def retire(self, channel: Channel, parts: Sequence[Buffer], grace: float) -> None:
        """Send the child its last message and wait for it to end by itself.

        Args:
            channel: channel of the message.
            parts: the message.
            grace: seconds to wait before the child is killed.
        """
        import asyncio

        if self._child is not None:
            child, self._child = self._child, None
            child.release(Channel.IOPUB)  # its last message must not wait for the frontends
            ended = asyncio.Event()
            child.on_frame = lambda _channel, _parts: None
            child.on_exit = lambda _error: ended.set()
            child.send(channel, parts)
            try:
                await asyncio.wait_for(ended.wait(), grace)
            except TimeoutError:
                pass
            finally:
                child.close()

    def kill(self, error: MxcKernelError) -> None:
        """End the child that runs cells, for a reason of the host's own."""
        child = self._running
        if child is not None:
            child.close()
            self._died(child, error)

    # --- the child in force ---------------------------------------------------------------------

    @property
    def effective(self) -> Policy:
        """What is in force, or would be if a child were launched now: request and ceiling, met."""
        return self._clamp(self.request)

    @property
    def _running(self) -> Child | None:
        """The child that runs cells now."""
        return self._guest.child if self._guest is not None else self._child

    @property
    def _children(self) -> list[Child]:
        """The session's child and a throwaway one, as far as they are there."""
        guest = self._guest.child if self._guest is not None else None
        return [child for child in (self._child, guest) if child is not None]

    def policy_for(self, request: Request) -> Policy:
        """Return what would be in force for a request."""
        return self._clamp(request)

    def refresh(self) -> None:
        """Take note of ceiling files that changed on disk.

        Within a session a ceiling only narrows; what it allows in addition counts after a restart.

        Raises:
            SandboxPolicyError: they can no longer be read, or say something wrong.
        """
        ceiling = self._open()
        if stamp(ceiling.looked_at) != self._stamp:
            newer = load_ceiling(notebook_dir=self._notebook_dir, environ=self._environ)
            self._ceiling = ceiling.followed_by(newer)
            self._stamp = stamp(self._ceiling.looked_at)
            self._clamped = None

    @property
    def limits(self) -> Limits:
        """The limits in force; the defaults while no ceiling can be read."""
        try:
            return self.effective.limits
        except MxcKernelError:
            return DEFAULT_LIMITS

    @property
    def redaction(self) -> Redaction:
        """What operators add to the redaction of output; nothing while no ceiling is read."""
        return self._ceiling.redaction if self._ceiling is not None else Redaction()

    def send(self, channel: Channel, parts: Sequence[Buffer]) -> bool:
        """Send a frame to the child; false where there is none."""
        if self._child is None:
            return False
        self._child.send(channel, parts)
        return True

    def drop(self, request: Request, error: MxcKernelError) -> list[View]:
        """End the child because it could not be narrowed to a request; the names are lost."""
        from mxc_kernel import notices

        self.request = request
        if self._child is not None:
            self._child.close()
            self._child, self._lost_child = None, True
            self.journal.carried(0, 0, 0, gone=True)
            self.on_replaced()
        return notices.dropped(error)

    def hold_output(self, hold: bool) -> None:
        """Let the child wait before it shows more, or let it go on; its replies always come."""
        self._holding = hold
        for child in self._children:
            if hold:
                child.hold(Channel.IOPUB)
            else:
                child.release(Channel.IOPUB)

    def wake(self) -> None:
        """Let the child go on, if someone has stopped it."""
        child = self._running
        if child is not None and child.alive:
            child.process.wake()

    # --- what cells use -------------------------------------------------------------------------

    def cell_started(self, cell: object, *, throwaway: bool) -> None:
        """Count and look after what a cell uses, right before it is sent.

        Args:
            cell: stands for it.
            throwaway: whether it runs in a child of its own.
        """
        launched = self._guest if throwaway else self._launched
        if launched is not None:
            spare = [self._spare.child] if self._spare.child is not None else []
            self._consumption.cell_started(cell, launched, [*self._children, *spare])

    def cell_ended(self, cell: object) -> None:
        """Look after a cell no longer."""
        self._consumption.cell_ended(cell)

    def left_running(self, cell: object, *, end: bool) -> list[View]:
        """Return the note on the processes that a cell leaves running, and perhaps end them."""
        return self._consumption.left_running(cell, end=end)

    def _end_idle(self, enforcement: Enforcement, error: MxcKernelError) -> None:
        child = self._child
        if child is not None and child.process.enforcement is enforcement:
            child.close()
            self._died(child, error)

    def interrupt(self) -> None:
        """Raise KeyboardInterrupt in what the child runs."""
        child = self._running
        if child is not None and child.alive:
            child.interrupt()

    def gone(self) -> SandboxExecutionError:
        """Return the error for a cell whose child went away before it was sent."""
        return SandboxExecutionError(
            "the sandbox ended before the cell was run",
            remedy="Run the cell again: it gets a fresh sandbox.",
        )

    # --- a child for a request ------------------------------------------------------------------

    def must_relaunch(self, request: Request) -> bool:
        """Whether the request needs another sandbox than the running one."""
        if self._child is None or self._launched is None:
            return False
        return not self._launched.fits(self._clamp(request))

    async def prepare(
        self,
        request: Request,
        *,
        renew: bool = False,
        restore: bool = False,
        strict: bool = False,
    ) -> list[View]:
        """Make sure that a child runs under a request, and adopt the request.

        Where this fails or is cancelled, the old child and the old request stay.

        Args:
            request: all that the session asks for.
            renew: start a new child even if the policy stays as it is.
            restore: give the new child the names of the last snapshot, not the present ones.
            strict: fail if a name cannot be carried.

        Returns:
            What the user should be told about it.

        Raises:
            MxcKernelError: no child can run under this request.
        """
        from mxc_kernel import notices
        from mxc_kernel.carrying import AUTOMATIC, Snapshot, Transfer

        carrier = self._carrier
        if restore and carrier.snapshot is None:
            raise SandboxPolicyError(
                "there is no snapshot to go back to", remedy="%checkpoint takes one."
            )
        same = not (renew or restore or self.must_relaunch(request))
        if self._child is not None and same and self._limited(self._child, request):
            await self._child.ready(self._open().settings.start_timeout)
            self.request = request
            self._want_spare()
            return self._take_notes()
        old, copy = self._child, None
        source: Child | Snapshot | None = carrier.snapshot if restore else old
        launched = await self._fresh(request)
        child, carried = launched.child, None
        try:
            reason = "restore" if restore else "restart" if renew else "policy"
            if old is None and not restore:
                reason = "death" if self._lost_child else "start"
            self.journal.launched(self._audited(launched), reason)
            if source is not None:
                copy = Snapshot("a change of policy", AUTOMATIC) if source is old else None
                transfer = Transfer(source, child, copy=copy, strict=strict)
                carried = await carrier.run(transfer)
        except BaseException:
            child.close()
            if copy is not None:
                copy.close()
            raise
        self._child, self._launched, self.request = child, launched, request
        if carried is not None:
            self.journal.carried(carried.names, len(carried.lost), len(carried.noted))
        self._want_spare()
        if old is not None:
            old.close()
            self.on_replaced()
        if copy is not None:
            carrier.keep(copy)
        fresh, self._lost_child = self._lost_child, False
        notes = self._take_notes()
        if restore and carried is not None and carrier.snapshot is not None:
            return notes + notices.restored(carrier.snapshot, carried)
        if carried is not None:
            return notes + notices.relaunched(carried)
        reason, self._lost_for = self._lost_for, ""
        return notes + notices.fresh_after_death(carrier.snapshot, reason) if fresh else notes

    async def checkpoint(self) -> list[View]:
        """Take a snapshot of the names now, to go back to by hand or after a death."""
        from mxc_kernel import notices

        assert self._child is not None
        return notices.checkpointed(*await self._carrier.checkpoint(self._child))

    @contextlib.asynccontextmanager
    async def throwaway(self, plan: Throwaway) -> AsyncIterator[Child]:
        """Give a child that runs one cell under a request of its own, and end it afterwards.

        Args:
            plan: what it is granted, and which names go in and come out.

        Raises:
            MxcKernelError: it cannot run, or a named variable cannot go in or come out.
        """
        main = self._child
        assert main is not None
        launched = await self._fresh(plan.request)
        child = launched.child
        self._guest = launched
        try:
            self.journal.launched(self._audited(launched), "throwaway")
            if plan.names_in:
                await self._carrier.share(main, child, plan.names_in, objects=plan.objects)
            yield child
        finally:
            self._guest = None
            child.close()

    async def bring_out(self, child: Child, plan: Throwaway) -> None:
        """Give the session the names that a throwaway child has made for it.

        Raises:
            MxcKernelError: a named variable cannot come out; the session gets none of them.
        """
        if plan.names_out and self._child is not None:
            names, objects = plan.names_out, plan.objects
            await self._carrier.share(child, self._child, names, objects=objects)

    def under(self, throwaway: Throwaway | None = None) -> Under:
        """Return what a cell runs under, for its audit.

        Args:
            throwaway: the plan of a cell in a child of its own.

        Raises:
            MxcKernelError: there is no child.
        """
        from mxc_kernel.audit.facts import Under

        launched = self._launched if throwaway is None else self._guest
        if launched is None:
            raise self.gone()
        request = self.request if throwaway is None else throwaway.request
        return Under(
            self._open(),
            request,
            self._clamp(request),
            self._audited(launched),
            throwaway is not None,
        )

    def magic_context(self) -> MagicContext:
        """Return what policy magics may know of the session."""
        from mxc_kernel.magics import MagicContext

        ceiling = self._open()
        return MagicContext(
            ceiling=ceiling,
            request=self.request,
            notebook_dir=self._notebook_dir,
            contract=lambda policy: self._starter.contract_text(policy, ceiling.settings),
            denials=tuple(self._denials),
            sandbox_readonly=self._starter.readonly,
            scratch=self._starter.scratch,
            audit=lambda: self.journal.cells(),
            sandbox=lambda: self._starter.facts(self._child, self._spare.child, ceiling.settings),
        )

    @property
    def libraries(self) -> Libraries:
        """The charting libraries for the output level ``frame``."""
        return self._starter.libraries

    def explain(self, evidence: object) -> list[Finding]:
        """Return what a cell reported as blocked comes to. The evidence is the child's word."""
        from mxc_kernel import denials

        if not isinstance(evidence, dict) or not evidence.get("denials"):
            return []
        self._denials = [*self._denials, evidence][-_REMEMBERED_DENIALS:]
        rules = denials.Rules(
            ceiling=self._open(),
            effective=self.effective,
            readonly=self._starter.readonly,
            scratch=self._starter.scratch,
            exists=exists_unlinked,
            notebook_dir=None if self._starts_in_notebook_dir() else self._notebook_dir,
        )
        return denials.judge(evidence, rules)

    # --- inside ---------------------------------------------------------------------------------

    def _open(self) -> Ceiling:
        """Read the ceiling, once."""
        if self._ceiling is None:
            self._ceiling = load_ceiling(notebook_dir=self._notebook_dir, environ=self._environ)
            self._stamp = stamp(self._ceiling.looked_at)
            self.request = self._ceiling.start
        return self._ceiling

    def _clamp(self, request: Request) -> Policy:
        """Return what is in force for a request, worked out once for each (about 5 ms)."""
        if self._clamped is None or self._clamped[0] is not request:
            self._clamped = (request, self._open().clamp(request))
        return self._clamped[1]

    def _audited(self, launched: Launched) -> Sandbox:
        """Return what the audit keeps of a sandbox; the same each time."""
        if self._facts is None or self._facts.launched is not launched:
            from mxc_kernel.audit.facts import Sandbox
            from mxc_kernel.mxc import usage

            executable = self._starter.executable(self._open().settings)
            self._facts = Sandbox(
                launched,
                launched.policy.with_filesystem(launched.mounts.filesystem),
                executable.version,
                executable.sha256,
                self._starter.backend,
                launched.child.attested,
                lambda: usage.of(launched.child.process),
            )
        return self._facts

    def _want_spare(self) -> None:
        if self._open().settings.spare:
            self._spare.wanted()

    def _take_notes(self) -> list[View]:
        """Return what the last launch could not mount, once."""
        from mxc_kernel import notices

        launched, told = self._launched, self._told
        self._told = launched
        return notices.not_mounted(launched.mounts) if launched and launched is not told else []

    def _limited(self, child: Child, request: Request) -> bool:
        """Give the running child a request's limits; false where that failed."""
        enforcement = child.process.enforcement
        return enforcement is None or enforcement.set(self._clamp(request).limits)

    def _starts_in_notebook_dir(self) -> bool:
        launched = self._launched
        return (
            launched is not None
            and launched.mounts.filesystem.access(self._notebook_dir) > Access.NONE
        )

    async def _fresh(self, request: Request) -> Launched:
        """Return a child for a request: the spare, where there is one that fits, or a new one."""
        return self._spare.take(self._clamp(request)) or await self._started(request)

    async def _started(self, request: Request) -> Launched:
        """Launch a child and wait for its handshake."""
        assert self._loop is not None
        settings = self._open().settings
        launched = self._starter.start(self._clamp(request), settings)
        child = launched.child
        try:
            self._adopt(child)
            child.attach(self._loop)
            _tell_magics(child)
            await child.ready(settings.start_timeout)
        except BaseException:
            child.close()
            raise
        return launched

    def _adopt(self, child: Child) -> None:
        if self._holding:
            child.hold(Channel.IOPUB)
        child.on_frame = lambda channel, parts: self._frame(child, channel, parts)
        child.on_exit = lambda error: self._died(child, error)

    def _frame(self, child: Child, channel: Channel, parts: list[bytes]) -> None:
        if channel is not Channel.STATE:
            if child in self._children:
                self.on_frame(channel, parts)
        else:
            self._carrier.frame(child, parts)

    def _died(self, child: Child, error: MxcKernelError) -> None:
        self._carrier.died(child, error)
        if child is self._child:
            self._child = None
            # A child that did not come as far as running a cell took no names with it.
            self._lost_child = self._lost_child or child.alive
            self.journal.carried(0, 0, 0, gone=child.alive)
            self._lost_for = "" if self._consumption.busy else error.message
            self.on_exit(error)
        elif self._guest is not None and child is self._guest.child:
            self.on_guest_exit(error)


def _tell_magics(child: Child) -> None:
    """Tell the child the magics' help; not in the HELLO, which must not wait for their import."""
    from mxc_kernel import magics

    child.send(Channel.HELLO, [b"magics", json.dumps(magics.describe()).encode()])

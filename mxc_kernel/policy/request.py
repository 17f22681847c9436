"""What a session asks for. A request grants nothing by itself: a ceiling clamps it."""

from __future__ import annotations

from typing import Any

from mxc_kernel.policy.access import Access
from mxc_kernel.policy.filesystem import Filesystem
from mxc_kernel.policy.model import Limits, Policy
from mxc_kernel.records import record, replace

__all__ = ["Request"]


@record
class Request:
    """All that a session has asked for so far.

    Args:
        filesystem: the paths asked for, minus those given back since.
        limits: limits asked for by hand; None asks for nothing.
        narrowed: what the session gave up until the kernel restarts.
    """

    filesystem: Filesystem = Filesystem()
    limits: Limits = Limits()
    narrowed: Policy = Policy.top()

    def allow(self, path: str, access: Access) -> Request:
        """Ask for at least this access to a canonical path and all below it."""
        return replace(self, filesystem=self.filesystem.allow(path, access))

    def revoke(self, path: str) -> Request:
        """Give back all access to a canonical path and all below it; it may be asked for again."""
        return replace(self, filesystem=self.filesystem.revoke(path))

    def with_limits(self, **limits: Any) -> Request:
        """Ask for these limits instead of earlier ones; None goes back to the ceiling's."""
        return replace(self, limits=replace(self.limits, **limits))

    def narrow(self, policy: Policy) -> Request:
        """Give up what `policy` does not allow until the kernel restarts; it cannot be undone."""
        return replace(self, narrowed=self.narrowed.meet(policy))

    @property
    def policy(self) -> Policy:
        """What is asked for, as a policy: all but files as far as the ceiling goes."""
        asked = replace(
            Policy.top(self.filesystem.style), filesystem=self.filesystem, limits=self.limits
        )
        return asked.meet(self.narrowed)

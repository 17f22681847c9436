"""What an operator allows: ceiling files, met, and how a request is clamped to them."""

from __future__ import annotations

from typing import Any, Literal

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy.access import Access
from mxc_kernel.policy.audit import Audit
from mxc_kernel.policy.filesystem import Filesystem
from mxc_kernel.policy.model import LIMIT_NAMES, Limits, Policy
from mxc_kernel.policy.places import Places
from mxc_kernel.policy.redaction import Redaction
from mxc_kernel.policy.request import Request
from mxc_kernel.records import record, replace

__all__ = ["DEFAULT_LIMITS", "Ceiling", "Explanation", "Layer", "LayerName", "Settings"]

LayerName = Literal["system", "user", "project"]

# Hold for a limit that no layer states. Threads count as processes and numerical libraries start
# one per core, so 64 is too few on a large machine; 1 MiB is more text than anyone reads in a
# cell. Loaders of training data hold thousands of descriptors, and unpack a million small files.
DEFAULT_LIMITS = Limits(
    cell_timeout=None,
    cpu_time=None,
    memory=4 << 30,
    processes=256,
    open_files=4096,
    file_size=None,
    scratch_space=2 << 30,
    scratch_files=200_000,
    grant_space=16 << 30,
    grant_files=1_000_000,
    output=1 << 20,
    # A figure of plotly with its library is 5.5 MB, an hour of three progress bars 65 MB.
    rich_output=256 << 20,
    single_output=64 << 20,
    outputs=10_000,
    # Jupyter's server drops what comes faster than 1,000 messages a second.
    output_rate=200,
    session_output=10 << 30,
)


@record
class Settings:
    """How the kernel works for an operator; none of it is a grant, so none of it is met.

    The system's file decides, then the user's, key by key. A project's file may not have any.

    Args:
        uids: first and last uid that sandboxes of a kernel started as root may be given.
        python: the child's interpreter, an absolute path; None is the kernel's choice.
        executable: the sandbox executable, an absolute path; None looks in the usual places.
        start_timeout: seconds that a child may take to answer.
        spare: whether a second child stands ready for the policy in force.
        audit: how the audit trail is kept.
    """

    uids: tuple[int, int] = (60706, 61183)
    python: str | None = None
    executable: str | None = None
    start_timeout: float = 30.0
    spare: bool = False
    audit: Audit = Audit()


@record
class Layer:
    """One ceiling file, as read.

    Args:
        name: which layer it is.
        source: the file it came from, canonical.
        policy: what it allows. What a project's file leaves out it does not narrow.
        start: what a session holds before it asks, as the file says.
        requests: whether a session may ask for more than `start`.
        settings: how the kernel works, as the file says.
        stated: names of the limits and settings that the file does state.
        listed: the canonical paths that the file grants by name.
        redaction: what it adds to the redaction of output.
    """

    name: LayerName
    source: str
    policy: Policy
    start: Filesystem = Filesystem()
    requests: Literal["magics", "none"] = "magics"
    settings: Settings = Settings()
    stated: frozenset[str] = frozenset()
    listed: tuple[str, ...] = ()
    redaction: Redaction = Redaction()


@record
class Explanation:
    """Why a path has the access it has.

    Args:
        path: the canonical path asked about.
        access: what the ceiling holds for it.
        decided_by: the layer, or what else, that sets it.
        reason: one sentence.
        layers: for each layer its name, its access, and the grant in it that decides, if any.
    """

    path: str
    access: Access
    decided_by: str
    reason: str
    layers: tuple[tuple[str, Access, str | None], ...] = ()


@record
class Ceiling:
    """The boundary of a session: nothing beyond it is ever in force.

    Args:
        policy: the meet of all layers.
        start: what a session holds before it asks, already clamped.
        layers: the files it was made from, system first; empty where there is none.
        requests: "none" where a session may not ask for more than `start`.
        settings: how the kernel works.
        places: files and folders with rules of their own.
        looked_at: the ceiling files looked for, whether or not they exist.
        redaction: what operators add to the redaction of output; no request can change it.
    """

    policy: Policy
    start: Request = Request()
    layers: tuple[Layer, ...] = ()
    requests: Literal["magics", "none"] = "magics"
    settings: Settings = Settings()
    places: Places = Places()
    looked_at: tuple[str, ...] = ()
    redaction: Redaction = Redaction()

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over everything that decides what a request comes to."""
        import hashlib  # with OpenSSL's 4 ms, which most starts can do without
        import json

        return hashlib.sha256(
            json.dumps(self.plain(), sort_keys=True, ensure_ascii=True).encode()
        ).hexdigest()

    def plain(self) -> dict[str, Any]:
        """Return the ceiling as JSON-able data in one fixed form."""
        return {
            "policy": self.policy.plain(),
            "start": self.start.policy.plain(),
            "requests": self.requests,
            "settings": {**vars(self.settings), "audit": dict(vars(self.settings.audit))},
            "redaction": self.redaction.plain(),
            "layers": [
                {"name": layer.name, "source": layer.source, "policy": layer.policy.plain()}
                for layer in self.layers
            ],
        }

    def holds(self, path: str) -> Access:
        """Return the most that a session may be given for a canonical path."""
        files = self._files
        return min(files.access(path), self.places.highest(path))

    def clamp(self, request: Request) -> Policy:
        """Return what is in force for a request: what it asks for and the ceiling allows."""
        policy = request.policy.meet(self.policy)
        files = self.places.guard(policy.filesystem.meet(self._files))
        return policy.with_filesystem(files)

    def check(self, request: Request, *, held: Request | None = None) -> None:
        """Refuse a request that asks for more than the ceiling holds.

        Protected files inside a larger grant are no reason to refuse: `clamp` leaves them out.

        Args:
            request: all that the session asks for.
            held: what was accepted before and is not asked for anew.

        Raises:
            SandboxPolicyError: names the path or limit, what was asked and what the ceiling holds.
        """
        before = held.filesystem if held else self.start.filesystem
        # Where the two differ, one of them says something about that path or one above it: what was
        # given back and is asked for again may stand in `before` alone.
        for path in sorted({path for path, _ in (*request.filesystem.grants, *before.grants)}):
            asked = request.filesystem.access(path)
            if before.access(path) < asked:
                self._check_path(path, asked)
        self._check_inside(request.filesystem, before)
        for name in LIMIT_NAMES:
            self._check_limit(
                name, getattr(request.limits, name), getattr(held, "limits", Limits())
            )

    def followed_by(self, newer: Ceiling) -> Ceiling:
        """Return the ceiling of a running session after its files changed: it can only narrow.

        Args:
            newer: what the files say now. Its settings and layers are taken over.
        """
        secret = {path for path in newer.places.opened if path in self.places.opened}
        added = (place for place in self.places.table if place not in newer.places.table)
        requests: Literal["magics", "none"] = (
            "none" if "none" in (self.requests, newer.requests) else "magics"
        )
        return replace(
            newer,
            policy=self.policy.meet(newer.policy),
            start=replace(
                newer.start, filesystem=self.start.filesystem.meet(newer.start.filesystem)
            ),
            requests=requests,
            places=newer.places.with_places(added).opening(secret),
            redaction=self.redaction.meet(newer.redaction),
        )

    def explain(self, path: str) -> Explanation:
        """Say which layer decides about a canonical path, and why."""
        layers = []
        for layer in self.layers:
            grant = layer.policy.filesystem.grant_for(path)
            layers.append(
                (layer.name, layer.policy.filesystem.access(path), grant[0] if grant else None)
            )
        access = self.holds(path)
        if not layers:
            why = "There is no ceiling file, so nothing is granted."
            return Explanation(path, access, "default", why)
        if access < self.policy.filesystem.access(path):
            why = self.places.why(path) or "it is not named by the ceiling"
            return Explanation(path, access, "protected", f"{path}: {why}.", tuple(layers))
        name, _, grant_path = min(layers, key=lambda item: item[1])
        source = next(layer.source for layer in self.layers if layer.name == name)
        if grant_path is None:
            why = f"No grant in {source} reaches it."
        else:
            why = f"{source} grants {access.words} at {grant_path}."
        return Explanation(path, access, name, why, tuple(layers))

    @property
    def _files(self) -> Filesystem:
        if self.requests == "none":
            return self.policy.filesystem.meet(self.start.filesystem)
        return self.policy.filesystem

    def _check_path(self, path: str, asked: Access) -> None:
        held = self._files.access(path)
        most = min(self.places.highest(path), self.places.by_name(path))
        if asked <= min(held, most):
            return
        wanted = f"{path}: {asked.words} was asked for"
        if asked <= held:
            raise SandboxPolicyError(
                f"{wanted}, {most.words} is the most for it: {self.places.why(path)}",
                remedy="Ask for another file or folder; %ceiling shows what there is.",
            )
        if self.requests == "none" and asked <= self.policy.filesystem.access(path):
            raise SandboxPolicyError(
                f"{wanted}, and the ceiling takes no requests",
                remedy='The operator can set requests = "magics", or list the path under [start].',
            )
        raise SandboxPolicyError(
            f"{wanted}, the ceiling holds {min(held, most).words}",
            remedy="%ceiling shows what may be asked for; only the operator can raise it.",
        )

    def _check_inside(self, asked: Filesystem, before: Filesystem) -> None:
        """Refuse a grant on a folder in which the operator allows less for something inside."""
        files = self._files
        for path, held in files.grants:
            wanted = asked.access(path)
            if held < wanted and before.access(path) < wanted:
                grant = asked.grant_for(path)
                raise SandboxPolicyError(
                    f"{grant[0] if grant else path}: {wanted.words} was asked for, "
                    f"the ceiling holds {held.words} for {path} inside it",
                    remedy="Ask for the folders beside it one by one, or for less.",
                )

    def _check_limit(self, name: str, asked: Any, before: Limits) -> None:
        held = getattr(self.policy.limits, name)
        unasked = getattr(Limits(), name)
        if asked == unasked or held is None or asked == getattr(before, name) or asked <= held:
            return
        raise SandboxPolicyError(
            f"{name} = {asked} was asked for, the ceiling holds {held}",
            remedy="Ask for no more than the ceiling holds; only the operator can raise it.",
        )

"""What each MXC backend can enforce, as data, each entry with where it is known from.

A policy that needs more is refused with the field, the backend and what to write instead. Nothing
is left out or rounded off to make a policy fit: `check` is called by `contract.render` for every
request, before a word of it is written.

Not imported on Linux for the policies that bubblewrap always enforces: a start has no time for it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mxc_kernel.errors import SandboxBackendUnsupportedError
from mxc_kernel.policy import Access, Filesystem, Network, NetworkMode, PathStyle

__all__ = [
    "BACKENDS",
    "DOCUMENTED",
    "PARSED",
    "RUN",
    "SOURCE",
    "Capabilities",
    "Nesting",
    "Support",
    "check",
    "check_identity_binding",
    "of",
]

RUN: Final = "run by this project's tests, with MXC 1.0.1"
PARSED: Final = "accepted by the real executable's parser (1.0.1), not run"
SOURCE: Final = "MXC's published source (schema 0.8), not run"
DOCUMENTED: Final = "MXC's documentation, not run"


class Support(NamedTuple):
    """Whether something is enforced, and where that is known from.

    Attributes:
        enforced: whether the backend enforces it.
        source: one of this module's four kinds of evidence.
        why: how it is enforced or why it cannot be, as a clause.
        instead: what to write in a ceiling instead, where it is not enforced.
    """

    enforced: bool
    source: str
    why: str
    instead: str = ""


class Nesting(NamedTuple):
    """One grant inside another: the access around it and its own."""

    outer: Access
    inner: Access


class Capabilities(NamedTuple):
    """What one backend can do.

    Attributes:
        name: its value of ``containment``.
        style: how its system writes paths.
        network: each mode of the network.
        nested: grants inside other grants that mean another access than the one around them; the
            outermost access is `Access.NONE` inside a grant for a denied folder.
        files: a grant on a single file.
        limits: ``memory`` and ``processes``, by whom.
        attestation: how the host knows that the policy is in force.
        stdio: what the workload inherits.
    """

    name: str
    style: PathStyle
    network: dict[NetworkMode, Support]
    nested: dict[Nesting, Support]
    files: Support
    limits: Support
    attestation: Support
    stdio: Support


_RO, _RW, _NONE = Access.READONLY, Access.READWRITE, Access.NONE
_CLOSE = 'Set [network] mode = "closed" in the ceiling.'
_HOSTS = Support(
    False,
    DOCUMENTED,
    "its rules know addresses, not host names, and no proxy of the kernel's stands between",
    _CLOSE,
)
_DEEPEST = Support(True, RUN, "the deepest path wins")
_APART = "Grant the inner folder and its neighbours one by one, without the folder around them."

BACKENDS: Final[dict[str, Capabilities]] = {
    "bubblewrap": Capabilities(
        "bubblewrap",
        PathStyle.POSIX,
        network={
            NetworkMode.CLOSED: Support(True, RUN, "a network namespace of its own"),
            NetworkMode.HOSTS: _HOSTS,
            NetworkMode.OPEN: Support(
                False,
                RUN,
                "it needs slirp4netns, nft and an open /dev/net/tun, says they are there when they"
                " are not, and then runs the workload all the same",
                _CLOSE,
            ),
        },
        nested={
            Nesting(_RO, _RW): _DEEPEST,
            Nesting(_RW, _RO): _DEEPEST,
            Nesting(_RO, _NONE): _DEEPEST,
            Nesting(_RW, _NONE): _DEEPEST,
            Nesting(_NONE, _RO): _DEEPEST,
            Nesting(_NONE, _RW): _DEEPEST,
        },
        files=Support(True, RUN, "written in place; rename and unlink answer EBUSY"),
        limits=Support(True, RUN, "by the host's control groups, where the machine allows them"),
        attestation=Support(True, RUN, "seen by the host in /proc"),
        stdio=Support(True, RUN, "stdin, stdout, stderr; others are closed by the worker"),
    ),
    "processcontainer": Capabilities(
        "processcontainer",
        PathStyle.WINDOWS,
        network={
            NetworkMode.CLOSED: Support(True, PARSED, "an AppContainer without any capability"),
            NetworkMode.HOSTS: _HOSTS,
            NetworkMode.OPEN: Support(
                True, PARSED, "internetClient alone: the internet, not private networks"
            ),
        },
        nested={
            Nesting(_RO, _RW): Support(True, SOURCE, "rights of access entries add up"),
            Nesting(_RW, _RO): Support(
                False,
                SOURCE,
                "the entry of the writable folder is inherited, and rights add up",
                _APART,
            ),
            Nesting(_RO, _NONE): Support(True, SOURCE, "a deny entry, which goes first"),
            Nesting(_RW, _NONE): Support(True, SOURCE, "a deny entry, which goes first"),
            Nesting(_NONE, _RO): Support(
                False, SOURCE, "which entry goes first differs between releases of Windows", _APART
            ),
            Nesting(_NONE, _RW): Support(
                False, SOURCE, "which entry goes first differs between releases of Windows", _APART
            ),
        },
        files=Support(True, PARSED, "an access entry on the file"),
        limits=Support(True, DOCUMENTED, "by the host's job object, around the executable's own"),
        attestation=Support(False, SOURCE, "probes from inside, told by the sandbox itself"),
        stdio=Support(True, SOURCE, "the three standard handles and no other"),
    ),
    "seatbelt": Capabilities(
        "seatbelt",
        PathStyle.MACOS,
        network={
            NetworkMode.CLOSED: Support(True, PARSED, "no rule that allows a connection"),
            NetworkMode.HOSTS: _HOSTS,
            NetworkMode.OPEN: Support(
                False,
                SOURCE,
                "its one rule for connections also opens this machine's own services: every"
                " Unix socket, Docker's among them, and Jupyter's server",
                _CLOSE,
            ),
        },
        nested={
            Nesting(_RO, _RW): Support(True, SOURCE, "the deepest path wins"),
            Nesting(_RW, _RO): Support(True, SOURCE, "the deepest path wins"),
            Nesting(_RO, _NONE): Support(True, SOURCE, "denials are the profile's last rules"),
            Nesting(_RW, _NONE): Support(True, SOURCE, "denials are the profile's last rules"),
            Nesting(_NONE, _RO): Support(
                False, SOURCE, "denials are the profile's last rules, whatever lies deeper", _APART
            ),
            Nesting(_NONE, _RW): Support(
                False, SOURCE, "denials are the profile's last rules, whatever lies deeper", _APART
            ),
        },
        files=Support(True, PARSED, "a rule on that path"),
        limits=Support(False, DOCUMENTED, "macOS has no control groups"),
        attestation=Support(False, SOURCE, "probes from inside, told by the sandbox itself"),
        stdio=Support(True, SOURCE, "what the executable has: three pipes"),
    ),
}


def check(backend: str, granted: Filesystem, network: Network) -> None:
    """Refuse a policy that a backend cannot enforce.

    Args:
        backend: its name.
        granted: all paths of a request, the workload's own included.
        network: where connections may go.

    Raises:
        SandboxBackendUnsupportedError: naming the field, the backend and the alternative.
    """
    able = of(backend)
    reach = able.network[network.mode]
    if not reach.enforced:
        raise _refusal(able, f'[network] mode = "{network.mode.name.lower()}"', reach)
    if granted.style is not able.style:
        raise SandboxBackendUnsupportedError(
            f'[filesystem]: {granted.style.value} paths mean nothing to the backend "{backend}"',
            remedy=f"Run it on its own system, or write {able.style.value} paths.",
        )
    for path, access in granted.grants:
        outer = _around(granted, path)
        support = able.nested.get(Nesting(outer, access)) if outer is not None else None
        if support is not None and not support.enforced:
            held = "denied" if outer is Access.NONE else str(outer and outer.words)
            field = f"[filesystem] {access.words} for {path} inside of what is {held}"
            raise _refusal(able, field, support)


def of(backend: str) -> Capabilities:
    """Return what a backend can do.

    Raises:
        SandboxBackendUnsupportedError: the kernel cannot drive it.
    """
    check_identity_binding(backend, None)
    if backend not in BACKENDS:
        raise SandboxBackendUnsupportedError(
            f'backend = "{backend}": the kernel cannot drive it',
            remedy=f"Use one of {', '.join(BACKENDS)}.",
        )
    return BACKENDS[backend]


def _around(filesystem: Filesystem, path: str) -> Access | None:
    """The access by the rule around a path; None where there is no rule around it."""
    parts = filesystem.style.parts(path)
    above = filesystem.grant_for(filesystem.style.join(parts[:-1])) if parts else None
    return above[1] if above is not None else None


def _refusal(able: Capabilities, field: str, support: Support) -> SandboxBackendUnsupportedError:
    return SandboxBackendUnsupportedError(
        f'{field}: the backend "{able.name}" cannot enforce it: {support.why}',
        remedy=support.instead,
    )


def check_identity_binding(backend: str, identity_binding: str | None) -> None:
    """Refuse to bind a sandbox to an identity: nobody can have that yet.

    This is the place where session isolation would come in: MXC's backend ``isolation_session``
    runs a workload in a Windows session of its own, through an interface that is a preview
    (``Windows.AI.IsolationSession.Preview``). The contract 1.0.0 has no field for an identity.

    Args:
        backend: the backend that is asked for.
        identity_binding: the identity, such as a user principal name; None for the user's own.

    Raises:
        SandboxBackendUnsupportedError: for any identity, and for that backend.
    """
    if backend != "isolation_session" and identity_binding is None:
        return
    field = "backend" if identity_binding is None else "identity_binding"
    value = backend if identity_binding is None else identity_binding
    raise SandboxBackendUnsupportedError(
        f'{field} = "{value}": session isolation under an Entra identity is not available yet. What'
        " is missing: a Windows with the preview interface Windows.AI.IsolationSession, and a field"
        " for the identity in MXC's contract 1.0.0",
        remedy="Leave it out; cells then run as the user who started the kernel.",
    )

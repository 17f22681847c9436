"""Says what the sandbox's policy had to do with an error in a cell, and what would allow it.

The evidence comes from the child, so it may be forged: every field is checked, and what is
recommended is worked out from the ceiling and never from the report's words. A forged report can at
most make the kernel print a magic for a path that the ceiling holds anyway; a person still has to
run it.

Nothing here looks at the disk. A note about a path outside the ceiling would otherwise tell the
code in the sandbox whether that path exists on the host.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mxc_kernel.crossings import LIMIT_WORDS, amount
from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy import NATIVE, Access, Ceiling, Network, NetworkMode, Policy, Request
from mxc_kernel.views import NO_CEILING, Block, Code, Lines, Paragraph, Table, View, notice

__all__ = [
    "Finding",
    "Rules",
    "explain",
    "judge",
    "magic_line",
    "note",
    "operator_remedy",
    "overview",
    "quoted",
]

_EXAMINED = 500  # reports judged, at some 50 µs each; honest cells send a few
_SHOWN = 5  # findings in the note beside a traceback
_LISTED = 100  # findings in the list of a whole session
_LONGEST_PATH = 4096  # characters, as PATH_MAX
_LONGEST_HOST = 253  # characters, RFC 1035
_INCOMPLETE = Paragraph(
    ("As the cells reported it; errors that code caught or other programs met may be missing.",)
)
_ERRNOS = frozenset({"EROFS", "EACCES", "EPERM", "ENOENT", "EXDEV"})

# What MXC's bubblewrap backend mounts by itself, measured with 1.0.1: host folders read-only, and
# file systems of the sandbox's own. None of them can be asked for with a magic.
_BASELINE = (
    *("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc"),
    *(f"/usr/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")),
    *("/usr/libexec", "/usr/share", "/proc", "/dev", "/sys"),
)
_PRIVATE = "/tmp"  # noqa: S108 - the sandbox's own, no file is made there


@dataclass(frozen=True, slots=True)
class Finding:
    """What one report comes to.

    Attributes:
        what: the operation, and what it was tried on.
        rule: the rule that stopped it, and what can be done.
        access: the access that a magic would have to ask for; NONE where none would help.
        path: the path that magic would name; empty where none would help.
        by_policy: whether the sandbox stopped it, and not the file's own permissions.
    """

    what: tuple[str, ...]
    rule: tuple[str, ...]
    access: Access = Access.NONE
    path: str = ""
    by_policy: bool = True

    def plain(self) -> dict[str, object]:
        """Return it as JSON-able data, for the reply's metadata."""
        return {
            "what": "".join(self.what),
            "rule": "".join(self.rule),
            "grant": magic_line(self.access, self.path),
            "by_policy": self.by_policy,
        }


@dataclass(frozen=True, slots=True)
class Rules:
    """What the reports of a session are judged by; `explain` describes the fields."""

    ceiling: Ceiling
    effective: Policy
    readonly: tuple[str, ...] = ()
    scratch: str | None = None
    exists: Callable[[str], bool] | None = None
    notebook_dir: str | None = None


def explain(
    evidence: Mapping[str, object],
    *,
    ceiling: Ceiling,
    effective: Policy,
    readonly: Sequence[str] = (),
    scratch: str | None = None,
    exists: Callable[[str], bool] | None = None,
    notebook_dir: str | None = None,
) -> View | None:
    """Explain the denials of one cell.

    Args:
        evidence: what the child sent, as it came (untrusted): an object with a list ``denials``.
        ceiling: the operator's ceiling.
        effective: the policy that the cell ran under.
        readonly: further folders of the sandbox itself, such as the interpreter's.
        scratch: the sandbox's scratch folder, where the policy stops nothing.
        exists: tells whether a path is there on the host; it may follow no symbolic link anywhere
            in the path, which code in the sandbox may have put there to learn where it leads. Only
            asked about paths that the ceiling permits; without it they are all taken to exist.
        notebook_dir: the notebook's folder, where relative paths would start if it were granted;
            None where it is.

    Returns:
        The note to show beside the traceback, or None where the policy explains nothing.
    """
    rules = Rules(ceiling, effective, tuple(readonly), scratch, exists, notebook_dir)
    return note(judge(evidence, rules))


def judge(evidence: Mapping[str, object], rules: Rules) -> list[Finding]:
    """Return what the denials of one cell come to, each once.

    Args:
        evidence: what the child sent, as it came (untrusted).
        rules: what they are judged by.
    """
    return list(dict.fromkeys(_findings([evidence], rules)))


def note(findings: Sequence[Finding]) -> View | None:
    """Return the note to show beside a traceback; None where there is nothing to tell."""
    if not findings:
        return None
    blocks: list[Block] = []
    for finding in findings[:_SHOWN]:
        blocks.append(Paragraph(("The cell reported: ", *finding.what, ". ", *finding.rule)))
        if line := magic_line(finding.access, finding.path):
            blocks.append(Lines((line,)))
    if len(findings) > _SHOWN:
        blocks.append(
            Paragraph((f"And {len(findings) - _SHOWN} more: see ", Code("%denials"), "."))
        )
    by_policy = any(finding.by_policy for finding in findings)
    title = "Blocked by the sandbox" if by_policy else "Refused, but not by the policy"
    return notice(title, *blocks, blocked=True)


def overview(
    evidence: Sequence[Mapping[str, object]],
    *,
    ceiling: Ceiling,
    effective: Policy,
    readonly: Sequence[str] = (),
    scratch: str | None = None,
    exists: Callable[[str], bool] | None = None,
) -> View:
    """List what cells reported as blocked so far, and the lines that would allow it.

    Args:
        evidence: the evidence of the session's cells in order (untrusted).
        ceiling: the operator's ceiling.
        effective: the policy in force now, so what was granted since is not listed again.
        readonly: further folders of the sandbox itself, such as the interpreter's.
        scratch: the sandbox's scratch folder, where the policy stops nothing.
        exists: tells whether a path is there on the host; it may follow no symbolic link anywhere
            in the path, which code in the sandbox may have put there to learn where it leads. Only
            asked about paths that the ceiling permits; without it they are all taken to exist.
    """
    rules = Rules(ceiling, effective, tuple(readonly), scratch, exists)
    findings = list(dict.fromkeys(_findings(evidence, rules)))
    if not findings:
        return notice("No denials that the policy in force explains", _INCOMPLETE)
    rows = tuple((item.what, item.rule) for item in findings[:_LISTED])
    blocks: list[Block] = [Table(("the cell reported", "rule"), rows)]
    if len(findings) > _LISTED:
        blocks.append(Paragraph((f"And {len(findings) - _LISTED} more.",)))
    if lines := _paste(findings):
        blocks += [Paragraph(("To allow what the ceiling permits:",)), Lines(lines)]
    return notice("Denials so far", *blocks, _INCOMPLETE, blocked=True)


def magic_line(access: Access, *paths: str) -> str | None:
    """Write the magic that asks for paths, ready to paste.

    Args:
        access: what to ask for.
        *paths: canonical paths.

    Returns:
        The line, or None where there is nothing to ask for or a path cannot be written in a cell.
    """
    words = [quoted(path) for path in paths]
    if access is Access.NONE or not words or not all(words):
        return None
    name = "%allow_rw" if access is Access.READWRITE else "%allow_ro"
    return " ".join([name, *(word for word in words if word)])


def operator_remedy(ceiling: Ceiling, path: str, access: Access) -> str:
    """Say who can raise the ceiling for a path, in which file and under which key."""
    return "".join(_operator(ceiling, path, access))


def _operator(ceiling: Ceiling, path: str, access: Access) -> tuple[str, ...]:
    if not ceiling.layers:
        return (NO_CEILING,)
    files = [
        layer.source for layer in ceiling.layers if layer.policy.filesystem.access(path) < access
    ]
    if not files:  # the files hold it, and something else does not
        if ceiling.requests == "none":
            return ("The ceiling takes no requests: a session holds what it starts with.",)
        return (ceiling.explain(path).reason,)
    key = "readwrite" if access is Access.READWRITE else "readonly"
    return (
        "Only the operator can allow it: under ",
        Code(f"[filesystem] {key}"),
        " in ",
        *_joined(files),
        ".",
    )


def _joined(files: Sequence[str]) -> tuple[str, ...]:
    return tuple(part for file in files for part in (" and in ", Code(file)))[1:]


def quoted(path: str) -> str | None:
    """Quote a path so that both the host's parser and a shell read it back.

    Returns:
        The word, or None where no quoting would do.
    """
    if not path or not path.isprintable() or '"' in path:
        return None
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", path):
        return path
    if "'" not in path and not path.endswith("\\"):
        return f"'{path}'"
    return '"' + re.sub(r"([\\$`])", r"\\\1", path) + '"'


def _findings(evidence: Sequence[Mapping[str, object]], rules: Rules) -> Iterator[Finding]:
    for report in itertools.islice(_reports(evidence), _EXAMINED):
        known = _JUDGES.get(str(report.get("kind")))
        if known is not None and (finding := known(report, rules)) is not None:
            yield finding


def _reports(evidence: Sequence[Mapping[str, object]]) -> Iterator[Mapping[str, object]]:
    """Yield what may be a report, the newest cell's first."""
    for item in reversed(evidence):
        reports = item.get("denials")
        if isinstance(reports, list):
            yield from (report for report in reports if isinstance(report, dict))


def _file_finding(report: Mapping[str, object], rules: Rules) -> Finding | None:
    path, errno = _path(report.get("path")), report.get("errno")
    if path is None or not isinstance(errno, str) or errno not in _ERRNOS:
        return None
    writes = report.get("operation") == "write" or errno in {"EROFS", "EXDEV"}
    verb = "writing " if writes else "reading " if report.get("operation") == "read" else "using "
    what = (verb, Code(path))
    need = Access.READWRITE if writes else Access.READONLY
    have, held = rules.effective.filesystem.access(path), rules.ceiling.holds(path)
    if rules.scratch is not None and _within(path, (rules.scratch,)):
        return _relative_finding(what, path, errno, rules)
    if have >= need:
        return _granted_finding(what, have, errno)
    if have is held is Access.NONE and _within(path, (*rules.readonly, *_BASELINE, _PRIVATE)):
        return _own_finding(what, path, errno, writes)
    rule = f"It is {have.words} in this session. " if have else "No grant in force reaches it. "
    if target := _grantable(path, need, rules.ceiling):
        # An invisible path that does not exist on the host either is the cell's own mistake. Only
        # asked within the ceiling, where the answer is no news to whoever may be granted it.
        if errno == "ENOENT" and rules.exists is not None and not rules.exists(target):
            return None
        where = "it" if target == path else "it for the folder"
        permits = f"The ceiling permits {where}; put this at the top of a cell:"
        return Finding(what, (rule, permits), need, target)
    return Finding(what, (rule, *_operator(rules.ceiling, path, need)))


def _relative_finding(what: tuple[str, ...], path: str, errno: str, rules: Rules) -> Finding | None:
    """Explain why a path relative to the notebook's folder leads to nothing."""
    if errno != "ENOENT" or rules.notebook_dir is None or rules.scratch is None:
        return None
    meant = os.path.join(rules.notebook_dir, os.path.relpath(path, rules.scratch))
    why = (
        "Relative paths start in the sandbox's scratch folder, because the notebook's folder is "
        "not granted. "
    )
    if target := _grantable(meant, Access.READONLY, rules.ceiling):
        if rules.exists is not None and not rules.exists(target):
            return None
        folder = _grantable(rules.notebook_dir, Access.READONLY, rules.ceiling) or target
        permits = "The ceiling permits it; put this at the top of a cell:"
        return Finding(what, (why, permits), Access.READONLY, folder)
    return Finding(what, (why, *_operator(rules.ceiling, meant, Access.READONLY)))


def _granted_finding(what: tuple[str, ...], have: Access, errno: str) -> Finding | None:
    """Explain an error on a path whose grant covers the operation; a missing file needs no note."""
    if errno == "ENOENT":
        return None
    if errno == "EROFS":
        why = "A symbolic link leads out of what is granted, or the host mounts it read-only."
    elif errno == "EXDEV":
        why = "Each grant is a file system of its own: copy and delete instead of renaming."
    else:
        why = "Its owner and mode refuse it; no magic would help."
    rule = f"The session holds {have.words} for it. {why}"
    return Finding(what, (rule,), by_policy=errno in {"EROFS", "EXDEV"})


def _own_finding(what: tuple[str, ...], path: str, errno: str, writes: bool) -> Finding | None:
    """Explain an error in the sandbox's own folders, which no magic opens."""
    if _within(path, (_PRIVATE,)):
        # Said of every missing file there, whether or not the host's folder has it.
        if errno != "ENOENT" or writes:
            return None
        own = f"The sandbox has a {_PRIVATE} of its own, and the host's cannot be granted."
        return Finding(what, (own,))
    if not writes or errno == "ENOENT":
        return None
    return Finding(
        what, ("It belongs to the sandbox itself, which is read-only for every session.",)
    )


def _grantable(path: str, need: Access, ceiling: Ceiling) -> str | None:
    """Return the path to ask for so that the reported one can be used, if the ceiling permits it.

    For writing that is the folder: a path that does not exist yet cannot be granted (MXC does not
    start then), and a file granted by itself can be neither renamed nor replaced (measured: EBUSY),
    which is how most programs save. Whether the file exists is not looked up. Never anything
    further up, and the path itself where the ceiling does not hold its folder.
    """
    folder = os.path.dirname(path)
    for candidate in (folder, path) if need is Access.READWRITE else (path,):
        if ceiling.holds(candidate) < need or quoted(candidate) is None:
            continue
        try:
            ceiling.check(Request().allow(candidate, need))
        except SandboxPolicyError:
            continue  # the ceiling holds less for something inside it
        return candidate
    return None


def _network_finding(report: Mapping[str, object], rules: Rules) -> Finding | None:
    host, network = report.get("host"), rules.effective.network
    if not isinstance(host, str) or len(host) > _LONGEST_HOST:
        host = ""
    if network.mode is NetworkMode.OPEN or _listed(host, network):
        return None
    what = ("connecting to ", Code(host)) if host else ("using the network",)
    if host.startswith("127.") or host in {"localhost", "::1"}:
        return Finding(what, ("The sandbox has a loopback of its own, not the host's.",))
    rule = "The network is closed. " if not network.hosts else "The host is not listed. "
    files = _joined([layer.source for layer in rules.ceiling.layers])
    if not files:
        return Finding(what, (rule, NO_CEILING))
    decides = "No magic opens it; the operator decides under "
    return Finding(what, (rule, decides, Code("[network]"), " in ", *files, "."))


# What an error may be about: limits by their names, and what it looks like.
_FULL = "no space left"
_LIMITED = {
    "open_files": (("open_files",), "too many open files"),
    "file_size": (("file_size",), "a file that is too large"),
    "scratch": (("scratch_space", "scratch_files"), _FULL),
    "memory": (("memory",), "out of memory"),
    "processes": (("processes",), "no further process or thread"),
}


def _limit_finding(report: Mapping[str, object], rules: Rules) -> Finding | None:
    names, what = _LIMITED.get(str(report.get("limit")), ((), ""))
    limits = rules.effective.limits
    held = {name: value for name in names if (value := getattr(limits, name)) is not None}
    if not held:
        return None
    most = " and ".join(f"{name} = {amount(name, value)}" for name, value in held.items())
    options = [part for name in held for part in (" and ", Code(LIMIT_WORDS[name][1]))][1:]
    where = " in one of the sandbox's own folders, such as /tmp" if what == _FULL else ""
    return Finding(
        (what,),
        (
            f"The limit{where} is {most}. ",
            "Use less, or raise it within the ceiling: ",
            Code("%limits"),
            " with ",
            *options,
            ".",
        ),
    )


def _listed(host: str, network: Network) -> bool:
    return network.mode is NetworkMode.HOSTS and host.lower().rstrip(".") in network.hosts


def _path(value: object) -> str | None:
    """Return a reported path in normal form, by its text alone; None if it is no absolute path."""
    if not isinstance(value, str) or not value or len(value) > _LONGEST_PATH:
        return None
    if not os.path.isabs(value):
        return None
    try:
        value.encode()
        return NATIVE.normal(os.path.normpath(value))
    except (UnicodeEncodeError, SandboxPolicyError):
        return None


def _within(path: str, folders: Sequence[str]) -> bool:
    return any(NATIVE.within(path, folder) for folder in folders)


_JUDGES: dict[str, Callable[[Mapping[str, object], Rules], Finding | None]] = {
    "filesystem": _file_finding,
    "network": _network_finding,
    "limit": _limit_finding,
}


def _paste(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Join what can be asked for into one line for each access."""
    lines = []
    for access in (Access.READONLY, Access.READWRITE):
        paths = sorted({item.path for item in findings if item.access is access})
        if line := magic_line(access, *paths[:_LISTED]):
            lines.append(line)
    return tuple(lines)

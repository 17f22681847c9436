"""Turns a ceiling file's text into a layer. Only reading a ceiling imports this module."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy.access import NATIVE, Access
from mxc_kernel.policy.audit import Audit
from mxc_kernel.policy.ceiling import Layer, LayerName, Settings
from mxc_kernel.policy.document import (
    AuditSection,
    CeilingFile,
    FilesystemSection,
    LimitsSection,
    NotPlain,
    ProjectFile,
    RedactionSection,
    SandboxSection,
    StartSection,
    parse,
    plainly,
)
from mxc_kernel.policy.filesystem import Filesystem
from mxc_kernel.policy.known import home_folder
from mxc_kernel.policy.model import Exceeded, HtmlLevel, Limits, Network, NetworkMode, Policy
from mxc_kernel.policy.paths import canonical, symlinks
from mxc_kernel.policy.places import Places
from mxc_kernel.policy.quantities import parse_duration, parse_size
from mxc_kernel.policy.redaction import Redaction
from mxc_kernel.policy.trust import read_trusted
from mxc_kernel.records import field_names, replace

__all__ = ["read_layer", "read_limits"]

_NOTEBOOK_DIR = "${notebook_dir}"
Grants = tuple[tuple[str, Access], ...]


def read_layer(
    name: LayerName,
    content: bytes,
    source: str,
    *,
    notebook_dir: str | None,
    environ: Mapping[str, str],
    places: Places,
) -> Layer:
    """Read a ceiling file's text.

    What a system's or user's file leaves out is denied, except limits, which it leaves to the
    other file and the defaults. What a project's file leaves out it does not narrow.

    Args:
        name: which layer it is read as.
        content: the file's bytes.
        source: its canonical path, or what messages call a text that is no file.
        notebook_dir: what ``${notebook_dir}`` stands for, canonical.
        environ: the kernel's environment, for the home folder.
        places: what has rules of its own.

    Raises:
        SandboxPolicyError: the text is not a ceiling, or grants what never can be granted.
    """
    document = parse(content, source, project=name == "project")
    reader = _Reader(source, notebook_dir, home_folder(environ), places)
    grants = reader.grants(document.filesystem)
    policy = _policy(document, grants, project=name == "project")
    reader.refuse_redirection(document.filesystem, policy.filesystem)
    layer = Layer(
        name=name,
        source=source,
        policy=policy,
        requests=document.requests or "magics",
        stated=frozenset(_stated(document.limits)),
        listed=tuple(path for path, access in grants if access),
        redaction=_redaction(document, reader, environ),
    )
    if not isinstance(document, CeilingFile):
        return layer
    if os.path.isabs(source):  # a runner's layer is no file
        reader.refuse_self_grant(policy.filesystem, layer.listed)
    return replace(
        layer,
        start=Filesystem(reader.grants(document.start)),
        settings=replace(_settings(document.sandbox, reader), audit=_audit(document.audit, reader)),
        stated=layer.stated
        | frozenset(_stated(document.sandbox))
        | frozenset(f"audit.{name}" for name in _stated(document.audit)),
    )


class _Reader:
    """Expands and checks the paths of one file."""

    def __init__(self, source: str, notebook_dir: str | None, home: str, places: Places) -> None:
        self._source = source
        self._notebook_dir = notebook_dir
        self._home = home
        self._places = places

    def grants(self, section: FilesystemSection | StartSection | None) -> Grants:
        """Return a section's grants on canonical paths.

        Raises:
            SandboxPolicyError: a path that never can be granted, or not so far.
        """
        grants = tuple(
            (canonical(self.expand(text), base=None), access) for text, access in _entries(section)
        )
        places = self._places.opening(path for path, access in grants if access)
        for path, access in grants:
            if access > places.by_name(path):
                raise SandboxPolicyError(
                    f"{self._source}: {path} cannot be granted {access.words}: {places.why(path)}",
                    remedy=_refusal_remedy(places.by_name(path)),
                )
        return grants

    def expand(self, text: str) -> str:
        """Put in the home and the notebook's folder; nothing else is expanded.

        Raises:
            SandboxPolicyError: there is no notebook to take the folder of.
        """
        if text == "~" or text.startswith("~/"):
            return self._home + text[1:]
        if not text.startswith(_NOTEBOOK_DIR):
            return text
        if self._notebook_dir is None:
            raise SandboxPolicyError(
                f"{self._source}: {text} needs a notebook's folder, and there is none",
                remedy="Run the command in the notebook's folder, or write the path out.",
            )
        return self._notebook_dir + text.removeprefix(_NOTEBOOK_DIR)

    def place(self, text: str) -> str:
        """Return a path as it is meant, not made canonical: a symlink in it stays one."""
        return os.path.normpath(self.expand(text))

    def secret(self, text: str) -> str:
        """Return what stands in a file whose text is to be hidden.

        Raises:
            SandboxPolicyError: there is no such file, others may write it, or it is no text.
        """
        path = os.path.normpath(self.expand(text))
        found = read_trusted(path)
        if found is None:
            raise SandboxPolicyError(
                f"{self._source}: there is no {path}, whose text is to be hidden",
                remedy="Create the file, or take it out of redaction.files.",
            )
        try:
            return found[0].decode().strip()
        except UnicodeDecodeError:
            raise SandboxPolicyError(
                f"{self._source}: {path} is no text in UTF-8, so it cannot be looked for in output",
                remedy="Write the secret as text, or take the file out of redaction.files.",
            ) from None

    def refuse_redirection(self, section: FilesystemSection | None, filesystem: Filesystem) -> None:
        """Refuse entries whose meaning a sandbox could change for the next reading of the file.

        Raises:
            SandboxPolicyError: an entry goes through a symlink inside a grant of read and write
                access.
        """
        for text, _ in _entries(section):
            for link in symlinks(self.expand(text)):
                if filesystem.access(link) is Access.READWRITE:
                    raise SandboxPolicyError(
                        f"{self._source}: {text} goes through the symlink {link}, which a sandbox "
                        "could turn elsewhere",
                        remedy="Name the folder that the symlink leads to.",
                    )

    def refuse_self_grant(self, filesystem: Filesystem, listed: Iterable[str]) -> None:
        """Refuse a ceiling that lets a sandbox write the ceiling.

        Raises:
            SandboxPolicyError: the file lies inside one of its own grants of read and write access.
        """
        guarded = self._places.opening(listed).guard(filesystem)
        if guarded.access(self._source) is Access.READWRITE:
            grant = filesystem.grant_for(self._source)
            raise SandboxPolicyError(
                f"{self._source} lies inside {grant and grant[0]}, which it grants for writing",
                remedy="Move the file out of that folder, or list the file under denied.",
            )


def _policy(document: ProjectFile, grants: Grants, *, project: bool) -> Policy:
    policy = Policy.top() if project else Policy()
    if files := document.filesystem:
        only_denied = files.readonly is None and files.readwrite is None
        everything = ((NATIVE.everything, Access.READWRITE),) if project and only_denied else ()
        policy = policy.with_filesystem(Filesystem(everything + grants))
    if document.network:
        mode = NetworkMode[document.network.mode.upper()]
        policy = replace(policy, network=Network(mode, frozenset(document.network.hosts)))
    if document.output and document.output.html:
        policy = replace(policy, html=HtmlLevel[document.output.html.upper()])
    if document.environment and document.environment.names is not None:
        policy = replace(policy, environment=frozenset(document.environment.names))
    return replace(policy, limits=_limits(document.limits))


def read_limits(data: Mapping[str, Any], source: str) -> Limits:
    """Read limits in the form of a ceiling's section.

    Args:
        data: the section's keys and values.
        source: where it stands, for messages.

    Raises:
        SandboxPolicyError: names the key and what to write instead.
    """
    try:
        section: LimitsSection = plainly(dict(data), LimitsSection)
    except NotPlain:
        from mxc_kernel.policy.schema import validate

        section = validate(dict(data), source, LimitsSection)
    return _limits(section)


def _limits(section: LimitsSection | None) -> Limits:
    stated: dict[str, Any] = {}
    for name in _stated(section):
        if (value := getattr(section, name)) != "off":  # the top, where a limit stands anyway
            stated[name] = _LIMIT_READERS.get(name, int)(value)
    return Limits(**stated)


_LIMIT_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("cell_timeout", "cpu_time"), parse_duration),
    **dict.fromkeys(("memory", "file_size", "scratch_space", "grant_space"), parse_size),
    **dict.fromkeys(("output", "rich_output", "single_output", "session_output"), parse_size),
    "output_exceeded": lambda word: Exceeded[word.upper()],
}


def _redaction(document: ProjectFile, reader: _Reader, environ: Mapping[str, str]) -> Redaction:
    section = document.redaction
    literals = set(section.literals) if section else set()
    patterns = section.patterns if section else ()
    # A notebook's own file may add what is to be hidden, and has no say in what is not.
    exceptions = None if not isinstance(document, CeilingFile) else frozenset[str]()
    if isinstance(section, RedactionSection):
        exceptions = frozenset(section.exceptions)
        literals |= {environ[name] for name in section.variables if environ.get(name)}
        literals |= {reader.secret(text) for text in section.files}
    return Redaction(
        frozenset(literals), frozenset((item.name, item.pattern) for item in patterns), exceptions
    )


def _settings(section: SandboxSection | None, reader: _Reader) -> Settings:
    settings = Settings()
    if section is None:
        return settings
    if section.uids:
        low, high = section.uids.split("-")
        settings = replace(settings, uids=(int(low), int(high)))
    # A virtual environment's interpreter is a symlink that must stay one.
    if section.python:
        settings = replace(settings, python=reader.place(section.python))
    if section.executable:
        settings = replace(settings, executable=reader.place(section.executable))
    if section.start_timeout and (seconds := parse_duration(section.start_timeout)):
        settings = replace(settings, start_timeout=seconds)
    if section.spare is not None:
        settings = replace(settings, spare=section.spare)
    return settings


def _audit(section: AuditSection | None, reader: _Reader) -> Audit:
    if section is None:
        return Audit()
    said: dict[str, Any] = {name: getattr(section, name) for name in _stated(section)}
    for name, read in {
        "rotate": parse_size,
        "retention": parse_duration,
        "anchor_every": parse_duration,
        "anchor_file": reader.place,
        "key": reader.place,
    }.items():
        if name in said:
            said[name] = read(said[name])
    return Audit(**said)


def _entries(section: FilesystemSection | StartSection | None) -> Iterator[tuple[str, Access]]:
    if section is None:
        return
    levels = {
        "readonly": Access.READONLY,
        "readwrite": Access.READWRITE,
        "denied": Access.NONE,
    }
    for name, access in levels.items():
        for text in getattr(section, name, None) or ():
            yield text, access


def _stated(section: LimitsSection | SandboxSection | AuditSection | None) -> Iterator[str]:
    for name in field_names(section) if section else ():
        if getattr(section, name) is not None:
            yield name


def _refusal_remedy(most: Access) -> str:
    if most is Access.NONE:
        return (
            "Remove it from the file; folders beside or below it may be granted where it says so."
        )
    return f"List it under {most.name.lower()}, or grant another folder."

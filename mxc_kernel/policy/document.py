"""The ceiling file's form: what may stand in it.

The sections are plain dataclasses, and pydantic is the judge of them: it explains what is wrong
with a file and writes the JSON Schema (`schema`). But importing it and building its models takes
200 ms of processor time before each launch, reading by hand with all imports 30 ms, and nearly
every file that is read is the correct one of yesterday. So `parse` first goes through the same
annotations by hand, which accepts only what pydantic would, and asks pydantic about everything
else; a property test holds the two together.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from types import UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.policy.quantities import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    parse_duration,
    parse_size,
)
from mxc_kernel.records import field_names, is_record, record

__all__ = [
    "CeilingFile",
    "NotPlain",
    "ProjectFile",
    "ProjectRedactionSection",
    "RedactionSection",
    "parse",
    "plainly",
]

MIN_HIDDEN = 8  # characters; as for values of the host's variables (`output.secrets`)


@record
class Check:
    """A rule on a text in a ceiling file, which pydantic applies too.

    Args:
        rule: raises `ValueError` with what is wrong, a full stop, and what to write instead.
        pattern: a regular expression for the JSON Schema, for editors.
    """

    rule: Callable[[Any], None]
    pattern: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Tell pydantic to apply the rule after its own check of the type."""
        from pydantic_core.core_schema import no_info_after_validator_function

        def apply(value: Any) -> Any:
            self.rule(value)
            return value

        # Strict, else "5" and true would pass for a number.
        return no_info_after_validator_function(apply, {**handler(source), "strict": True})

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """Add the pattern to the JSON Schema."""
        return handler(schema) | ({"pattern": self.pattern} if self.pattern else {})


class NotPlain(Exception):  # noqa: N818 -- not an error: pydantic is asked next
    """The data is not plainly right."""


def _duration(text: str) -> None:
    _checked(parse_duration, text)


def _size(text: str) -> None:
    _checked(parse_size, text)


def _size_or_off(text: str) -> None:
    if text != "off":
        _size(text)


def _checked(read: Callable[[str], object], text: str) -> None:
    try:
        read(text)
    except SandboxPolicyError as error:
        raise ValueError(f"{error.message}. {error.remedy}") from None


def _path(text: str) -> None:
    if not re.match(r"/|~|\$\{notebook_dir\}(/|$)|[A-Za-z]:[\\/]|\\\\", text):
        raise ValueError(
            f"{text!r} is not an absolute path. Start it with /, ~/ or ${{notebook_dir}}/"
        )
    if "$" in text.removeprefix("${notebook_dir}"):
        raise ValueError(
            f"{text!r} holds '$'. Only ~ and ${{notebook_dir}}, at the start, are expanded"
        )


def _uids(text: str) -> None:
    match = re.fullmatch(r"([0-9]{1,9})-([0-9]{1,9})", text)
    low, high = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1000 <= low <= high or (low <= 65535 and high >= 65534):
        # 65534 is nobody, whom many services share, and 65535 is -1 to old programs.
        raise ValueError(
            f'{text!r} is not a range of uids. Write it as "60706-61183", from 1000 up and '
            "without 65534 and 65535"
        )


def _collector(text: str) -> None:
    if not re.fullmatch(r"https?://[^\s@?#]+", text):
        raise ValueError(
            f'{text!r} is not a collector\'s address. Write it as "http://127.0.0.1:4318", without '
            "a password"
        )


def _host(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})", text) and not re.fullmatch(
        r"[0-9A-Fa-f:]{2,39}", text
    ):
        raise ValueError(
            f"{text!r} is not a host's name or address. Patterns and ports are not read"
        )


def _variable(text: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        raise ValueError(f"{text!r} is not a variable's name")


def _hidden(text: str) -> None:
    if len(text.strip()) < MIN_HIDDEN:
        # Not quoted here: it may be a secret.
        raise ValueError(
            "a text of less than 8 characters turns up by chance. Write a longer one, or a pattern"
        )


def _count(value: int) -> None:
    if not 1 <= value <= 1_000_000_000:
        raise ValueError(f'{value} is not between 1 and 1000000000. Write 256, say, or "off"')


Duration = Annotated[str, Check(_duration, DURATION_PATTERN)]
Size = Annotated[str, Check(_size, SIZE_PATTERN)]
SizeOrOff = Annotated[str, Check(_size_or_off, f"^off$|{SIZE_PATTERN}")]
Count = Annotated[int, Check(_count)]
CountOrOff = Count | Literal["off"]
Path = Annotated[str, Check(_path)]
Paths = tuple[Path, ...]
Uids = Annotated[str, Check(_uids, "^[0-9]+-[0-9]+$")]


class _Section:
    # Read by pydantic; a plain dict, so that it need not be imported to say it.
    __pydantic_config__: ClassVar[dict[str, object]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }


@record(kw_only=True)
class FilesystemSection(_Section):
    """Which files and folders a sandbox may be given. The deepest entry for a path decides."""

    readonly: Paths | None = None
    """Files and folders, with all below them, that may be read."""
    readwrite: Paths | None = None
    """Files and folders, with all below them, that may be read and written."""
    denied: Paths | None = None
    """What stays closed inside the others."""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for path in (*(self.readonly or ()), *(self.readwrite or ()), *(self.denied or ())):
            if path in seen:
                raise ValueError(f"{path!r} is listed twice. Keep the entry that is meant")
            seen.add(path)


@record(kw_only=True)
class NetworkSection(_Section):
    """Where connections may go."""

    mode: Literal["closed", "hosts", "open"] = "closed"
    """Nowhere, to the listed hosts, or anywhere. Only "closed" can be enforced so far."""
    hosts: tuple[Annotated[str, Check(_host)], ...] = ()
    """Exact host names or addresses, for mode = "hosts"; an empty list means none."""

    def __post_init__(self) -> None:
        if self.hosts and self.mode != "hosts":
            raise ValueError(f'hosts are listed but mode is "{self.mode}". Write mode = "hosts"')


@record(kw_only=True)
class LimitsSection(_Section):
    """Upper bounds for each sandbox; a limit that no file states has a default."""

    cell_timeout: Duration | None = None
    """Time that a cell may run, such as "30s" or "10m"; "off" is no limit."""
    memory: SizeOrOff | None = None
    """Memory of all processes in the sandbox, such as "2GiB"; "off" is no limit."""
    processes: CountOrOff | None = None
    """Processes and threads at a time; "off" is no limit."""
    cpu_time: Duration | None = None
    """Processor time of a cell, in all processes together, such as "1h"; "off" is no limit."""
    open_files: CountOrOff | None = None
    """Files, pipes and sockets that one process may have open; "off" is no limit."""
    file_size: SizeOrOff | None = None
    """The largest file that a cell may write, such as "10GiB"; "off" is no limit."""
    scratch_space: SizeOrOff | None = None
    """Space in the sandbox's own folders, such as "2GiB"; "off" is no limit."""
    scratch_files: CountOrOff | None = None
    """Files and folders in them; "off" is no limit."""
    grant_space: SizeOrOff | None = None
    """Space that a session may add to one writable grant, such as "16GiB"; "off" is no limit."""
    grant_files: CountOrOff | None = None
    """Files and folders that it may add there; "off" is no limit."""
    output: Size | None = None
    """Text that a cell may show, such as "1MiB"."""
    rich_output: Size | None = None
    """Pictures, tables and widgets that a cell may show, in bytes, such as "256MiB"."""
    single_output: Size | None = None
    """The largest of them, such as "64MiB"."""
    outputs: Count | None = None
    """How many outputs a cell may have; a run of text counts as one."""
    output_rate: Count | None = None
    """Messages a second that reach the frontend one by one; what comes faster is joined."""
    session_output: Size | None = None
    """What all cells together may show until the kernel restarts, such as "10GiB"."""
    output_exceeded: Literal["continue", "stop"] | None = None
    """Whether a cell that passes one of these goes on unseen or is stopped."""


@record(kw_only=True)
class OutputSection(_Section):
    """What of a cell's output reaches the frontend."""

    html: Literal["text", "safe", "frame", "trusted"] | None = None
    """Text only; sanitised HTML; scripts in closed frames; or everything, as it comes."""


@record(kw_only=True)
class PatternSection(_Section):
    """A kind of secret of your own, hidden as `[redacted: name]`."""

    name: str = ""
    """What to show in its place; letters, digits and dashes."""
    pattern: str = ""
    """A regular expression that begins with three literal characters, such as "ACME-[0-9]{12}"."""

    def __post_init__(self) -> None:
        from mxc_kernel.output.patterns import pattern_rule

        _checked(lambda text: pattern_rule(self.name, text), self.pattern)


@record(kw_only=True)
class ProjectRedactionSection(_Section):
    """What is hidden in output, besides what always is."""

    literals: tuple[Annotated[str, Check(_hidden)], ...] = ()
    """Texts of 8 characters or more. A secret is better named by `variables` or `files`."""
    patterns: tuple[PatternSection, ...] = ()
    """Kinds of secrets."""


@record(kw_only=True)
class RedactionSection(ProjectRedactionSection):
    """What is hidden in output, besides what always is, and what is not."""

    variables: tuple[Annotated[str, Check(_variable)], ...] = ()
    """Variables of the kernel's environment whose values are hidden, whatever they are called."""
    files: Paths = ()
    """Files whose text is hidden, as a whole and line by line; only you or root may write them."""
    exceptions: tuple[Annotated[str, Check(_hidden)], ...] = ()
    """Texts that are shown though a rule or pattern matches; of two ceilings, both must say so."""


@record(kw_only=True)
class EnvironmentSection(_Section):
    """What of the host's environment a sandbox may see."""

    names: tuple[Annotated[str, Check(_variable)], ...] | None = None
    """Names of variables. Never secrets: others on the machine may be able to read the values."""


@record(kw_only=True)
class StartSection(_Section):
    """What a session holds before it asks for anything; clamped like any request."""

    readonly: Paths = ()
    """Files and folders that may be read from the start."""
    readwrite: Paths = ()
    """Files and folders that may be read and written from the start."""


@record(kw_only=True)
class SandboxSection(_Section):
    """How the kernel works. Not a grant: the system's file decides, then the user's."""

    uids: Uids | None = None
    """Uids for the sandboxes of kernels that root starts, such as "60706-61183"."""
    python: Path | None = None
    """The sandbox's Python."""
    executable: Path | None = None
    """The MXC executable; its hash is checked wherever it comes from."""
    start_timeout: Duration | None = None
    """Time that a sandbox may take to start."""
    spare: bool | None = None
    """Whether a second sandbox stands ready, for a fast %sandbox restart. It takes about 40 MB."""

    def __post_init__(self) -> None:
        if self.start_timeout == "off":
            raise ValueError('start_timeout cannot be "off". Write a time such as "60s"')


@record(kw_only=True)
class AuditSection(_Section):
    """How the audit trail is kept. Not a grant: the system's file decides, then the user's."""

    code: bool | None = None
    """Whether the code of cells is kept, redacted; its hash and length always are."""
    paths: Literal["labels", "raw"] | None = None
    """Whether paths are written out, or stand as labels that only tell them apart."""
    fsync: bool | None = None
    """Whether a record must be on the disk itself before the cell runs: against loss of power."""
    rotate: Size | None = None
    """Size after which a session's trail goes on in another file, such as "16MiB"."""
    retention: Duration | None = None
    """Age at which trails of ended sessions are deleted, such as "90d"; "off" keeps them."""
    anchor_file: Path | None = None
    """File outside of the trail that gets its head, line by line."""
    anchor_command: tuple[str, ...] | None = None
    """Command, with its arguments, that gets the trail's head on standard input."""
    anchor_every: Duration | None = None
    """Time between two anchors while records are written, such as "1m"."""
    key: Path | None = None
    """File with a key for the chain that root alone can read; for kernels that root starts."""
    otel: Annotated[str, Check(_collector, "^https?://")] | None = None
    """Address of an OpenTelemetry collector, such as "http://127.0.0.1:4318"."""

    def __post_init__(self) -> None:
        if self.anchor_every == "off":
            raise ValueError('anchor_every cannot be "off". Write a time such as "1m"')
        if self.anchor_command is not None and not self.anchor_command:
            raise ValueError('anchor_command is empty. Write a command such as ["logger"]')


@record(kw_only=True)
class ProjectFile(_Section):
    """A ceiling beside a notebook. It can only narrow; what it leaves out it does not narrow."""

    requests: Literal["magics", "none"] | None = None
    """Whether a session may ask for more than its start; "none" if any file says so."""
    filesystem: FilesystemSection | None = None
    network: NetworkSection | None = None
    limits: LimitsSection | None = None
    output: OutputSection | None = None
    redaction: ProjectRedactionSection | None = None
    environment: EnvironmentSection | None = None


@record(kw_only=True)
class CeilingFile(ProjectFile):
    """A ceiling of mxc-kernel: the most that any notebook's sandbox can be given."""

    redaction: RedactionSection | None = None
    start: StartSection | None = None
    sandbox: SandboxSection | None = None
    audit: AuditSection | None = None


def parse(content: bytes, source: str, *, project: bool) -> ProjectFile:
    """Read a ceiling file's text.

    Args:
        content: the file's bytes.
        source: its path, for messages.
        project: whether it is a notebook's, which may hold less.

    Returns:
        The file; a `CeilingFile` unless it is a notebook's.

    Raises:
        SandboxPolicyError: names the file, the key and what to write instead.
    """
    import tomllib

    try:
        data = tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SandboxPolicyError(
            f"{source} is not TOML: {error}",
            remedy="Correct the file; `mxc-kernel init` writes an example.",
        ) from error
    model = ProjectFile if project else CeilingFile
    try:
        plain: ProjectFile = plainly(data, model)
    except NotPlain:
        from mxc_kernel.policy.schema import validate

        return validate(data, source, model)
    return plain


def plainly(data: Any, model: Any) -> Any:
    """Build a section from TOML data that is exactly what the annotations say.

    Args:
        data: what TOML gave.
        model: one of the dataclasses above.

    Raises:
        NotPlain: the data is wrong, or is right in a way that only pydantic knows.
    """
    kinds = get_type_hints(model, include_extras=True)
    if type(data) is not dict or not data.keys() <= set(field_names(model)):
        raise NotPlain
    try:
        return model(**{name: _value(value, kinds[name]) for name, value in data.items()})
    except ValueError:
        raise NotPlain from None


def _value(value: Any, kind: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (UnionType, Union):
        for option in arguments:
            with contextlib.suppress(NotPlain):
                return _value(value, option)
        raise NotPlain
    if origin is Annotated:
        found = _value(value, arguments[0])
        for check in arguments[1:]:
            check.rule(found)
        return found
    if origin is tuple and type(value) is list:
        return tuple(_value(item, arguments[0]) for item in value)
    if origin is Literal and type(value) is str and value in arguments:
        return value
    if is_record(kind) and isinstance(kind, type):
        return plainly(value, kind)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise NotPlain

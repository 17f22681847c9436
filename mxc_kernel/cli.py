"""The command ``mxc-kernel``.

Each subcommand imports what it needs itself: ``--help`` and ``--version`` should not wait for
Jupyter's client or for the policy's models.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
from collections.abc import Sequence

from mxc_kernel.errors import MxcKernelError, SandboxUnavailableError

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run one command line.

    Args:
        arguments: what stands after the command's name.

    Returns:
        The exit status: 0 if all went well, 1 if not, 2 for a wrong command line.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except MxcKernelError as error:
        print(f"mxc-kernel: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; without this the flush at exit complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    from mxc_kernel import __version__

    parser = argparse.ArgumentParser(
        prog="mxc-kernel", description="A Jupyter kernel that runs every cell inside a sandbox."
    )
    parser.add_argument("--version", action="version", version=f"mxc-kernel {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    setup = _add(
        commands, "setup", _setup, "fetch and verify what the sandbox needs; safe to run again"
    )
    runtime = setup.add_argument_group(
        "the Python of the cells",
        "Started as root, a kernel runs cells as another user, who cannot reach a Python in a"
        " closed folder; setup then builds one from the system's. Otherwise these do nothing.",
    )
    runtime.add_argument(
        "--with",
        dest="packages",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="install this package into it, as pip takes it (may be repeated)",
    )
    runtime.add_argument("--extra", metavar="NAME", help="and what this extra of ours asks for")
    runtime.add_argument("--constraints", metavar="FILE", help="pip constraints for all of them")

    doctor = _add(commands, "doctor", _doctor, "say what works, what does not, and what to do")
    doctor.add_argument("--json", action="store_true", help="print the results as JSON")

    install = _add(commands, "install", _install, "register the kernel, or a variant, with Jupyter")
    place = install.add_mutually_exclusive_group()
    place.add_argument("--user", action="store_true", help="for the current user (the default)")
    place.add_argument("--sys-prefix", action="store_true", help="for this environment")
    place.add_argument("--prefix", metavar="FOLDER", help="below an installation prefix")
    install.add_argument("--name", help="the kernel's name (default: mxc-python)")
    install.add_argument("--display-name", metavar="TEXT", help="what JupyterLab shows")
    install.add_argument("--python", metavar="PATH", help="the interpreter that cells run in")
    install.add_argument("--ceiling", metavar="FILE", help="stands in for the user's ceiling file")

    init = _add(commands, "init", _init, "write a commented example of a ceiling file")
    where = init.add_mutually_exclusive_group()
    where.add_argument("--user", action="store_true", help="where it applies to you (the default)")
    where.add_argument("--path", metavar="FILE", help="somewhere else")

    _add_run(commands)
    _add_ceiling(commands)
    _add_audit(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = _add(commands, "run", _run, "run notebooks unattended, each in a sandbox of its own")
    run.add_argument("paths", nargs="+", metavar="PATH", help="notebooks, folders and patterns")
    run.add_argument("--ceiling", metavar="FILE", help="stands in for the user's ceiling file")
    run.add_argument(
        "--output-dir",
        metavar="FOLDER",
        help="where the executed notebooks go (beside the notebooks' folder: FOLDER-executed)",
    )
    run.add_argument("--jobs", type=_positive, metavar="N", help="so many at a time (processors)")
    run.add_argument("--cell-timeout", metavar="TIME", help="time for a cell, such as 30s or 5m")
    run.add_argument("--timeout", metavar="TIME", help="time for a whole notebook")
    run.add_argument(
        "--allow-errors",
        action="store_true",
        help="go on behind a cell that fails; what came of it is told all the same",
    )
    run.add_argument(
        "--parameters",
        "-p",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="put in behind the cell that is tagged parameters, as papermill does",
    )
    run.add_argument("--parameters-file", metavar="FILE", help="the same from JSON, TOML or YAML")
    run.add_argument("--resume", action="store_true", help="leave out what is done already")
    run.add_argument("--report", metavar="FILE", help="the report (FOLDER-executed/report.json)")
    run.add_argument(
        "--html",
        nargs="?",
        const="",
        metavar="FILE",
        help="the report as a page too (FOLDER-executed/report.html)",
    )
    run.add_argument(
        "--no-requests",
        action="store_true",
        help="a notebook gets what the ceiling gives at the start, whatever it asks for",
    )
    run.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help='run on the workers of this dask scheduler, or "dask": on some of this machine\'s own',
    )
    report = commands.add_parser("report", help="look into the reports of `run`")
    questions = report.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add(questions, "schema", _report_schema, "the JSON Schema of a report")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _add_ceiling(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    ceiling = commands.add_parser("ceiling", help="look at the limits that an operator set")
    questions = ceiling.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add(questions, "show", _ceiling_show, "what the layers allow together")
    check = _add(questions, "check", _ceiling_check, "is this file valid and trusted?")
    check.add_argument("file", metavar="FILE")
    explain = _add(questions, "explain", _ceiling_explain, "which layer decides about a path")
    explain.add_argument("path", metavar="PATH")
    _add(questions, "schema", _ceiling_schema, "the JSON Schema of a ceiling file")


def _add_audit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from mxc_kernel.audit.command import add

    audit = commands.add_parser("audit", help="show or check what ran, under which policy")
    below = audit.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add(lambda name, run, summary: _add(below, name, run, summary))


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: object,
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
    parser.set_defaults(run=run)
    return parser


def _setup(options: argparse.Namespace) -> int:
    from mxc_kernel.mxc import provision

    provision.fetch_executable(_say)
    if sys.platform == "linux":
        provision.install_bubblewrap(_say)
    else:
        _say("There is nothing else to install here. What was never tried on this system, and what")
        _say("its sandbox cannot do, is listed in docs/platforms.md. Now run `mxc-kernel doctor`.")
    if provision.needs_runtime():
        _set_up_runtime([*options.packages, *_extra(options.extra)], options.constraints)
    _write_image()
    return 0


def _set_up_runtime(packages: list[str], constraints: str | None) -> None:
    from mxc_kernel.mxc import provision, runtime

    if not packages:
        # Whatever was asked for before stays: a bare `setup` must not take packages away.
        with contextlib.suppress(SandboxUnavailableError):
            _say(f"The sandbox's interpreter is in place: {runtime.default().executable}")
            return
    try:
        provision.build_runtime(_say, packages=packages, constraints=constraints)
    except OSError as error:
        raise MxcKernelError(
            f"The sandbox's interpreter could not be built: {error}",
            remedy="Check the path of the constraints file and the space on the disk.",
        ) from error


def _write_image() -> None:
    from mxc_kernel.mxc import provision, runtime

    with contextlib.suppress(SandboxUnavailableError):  # then `doctor` and the kernel say why
        if path := provision.write_image(runtime.default()):
            _say(f"What a sandbox imports at its start is in one file: {path}")


def _extra(name: str | None) -> list[str]:
    """Return what one of our own optional extras asks for, by the installed metadata.

    Raises:
        MxcKernelError: there is no such extra.
    """
    if name is None:
        return []
    from importlib import metadata

    mark = re.compile(rf"\s*;\s*extra == ['\"]{re.escape(name)}['\"]$")
    asked = metadata.requires("mxc-kernel") or []
    found = [mark.sub("", line) for line in asked if mark.search(line)]
    if not found:
        raise MxcKernelError(
            f"mxc-kernel has no extra {name!r}.", remedy="Name the packages with --with."
        )
    return found


def _doctor(options: argparse.Namespace) -> int:
    from mxc_kernel import doctor

    results = []
    for result in doctor.examine():
        results.append(result)
        if not options.json:
            _say(doctor.render(result))
    report = doctor.as_json(results)
    if options.json:
        _say(json.dumps(report, indent=2))
    return 0 if report["ok"] else 1


def _install(options: argparse.Namespace) -> int:
    from mxc_kernel import kernelspec

    variant = kernelspec.Variant(
        name=kernelspec.NAME if options.name is None else options.name,
        display_name=options.display_name,
        python=options.python,
        ceiling=options.ceiling,
    )
    prefix = sys.prefix if options.sys_prefix else options.prefix
    _say(f"Registered {variant.name} in {kernelspec.install(variant, prefix=prefix)}")
    return 0


def _init(options: argparse.Namespace) -> int:
    from mxc_kernel.policy import example_ceiling, user_ceiling

    path = os.path.abspath(os.path.expanduser(options.path or user_ceiling()))
    _write_new(path, example_ceiling())
    _say(f"Wrote {path}\nEdit what it grants, then look at `mxc-kernel ceiling show`.")
    if options.path:
        _say(f"It applies to kernels that start with MXC_KERNEL_CEILING={path}")
    return 0


def _write_new(path: str, text: str) -> None:
    """Create a file that only this user can read, and private folders above it.

    Raises:
        MxcKernelError: it exists, or cannot be created.
    """
    try:
        missing = []
        folder = os.path.dirname(path)
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
        for folder in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(folder, 0o700)
        # O_EXCL does not follow a link in the last place either, so nothing is ever overwritten.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise MxcKernelError(
            f"{path} exists already and is left as it is.",
            remedy="Edit it, or write the example elsewhere: mxc-kernel init --path FILE",
        ) from None
    except OSError as error:
        raise MxcKernelError(
            f"{path} cannot be created: {error.strerror}",
            remedy="Choose another place: mxc-kernel init --path FILE",
        ) from error
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)


def _run(options: argparse.Namespace) -> int:
    from mxc_kernel.batch.command import run

    return run(options)


def _report_schema(_options: argparse.Namespace) -> int:
    from mxc_kernel.batch.report import report_schema

    _say(json.dumps(report_schema(), indent=2))
    return 0


def _ceiling_show(_options: argparse.Namespace) -> int:
    from mxc_kernel.policy import load_ceiling
    from mxc_kernel.views import ceiling_view

    ceiling = load_ceiling(notebook_dir=os.getcwd())
    _say(ceiling_view(ceiling, ceiling.policy).text)
    return 0


def _ceiling_check(options: argparse.Namespace) -> int:
    from mxc_kernel.policy import load_layer

    path = os.path.abspath(os.path.expanduser(options.file))
    if load_layer("user", path, notebook_dir=os.getcwd()) is None:
        raise MxcKernelError(
            f"{path} does not exist.", remedy=f"Write an example: mxc-kernel init --path {path}"
        )
    _say(f"{path} is valid and trusted.")
    return 0


def _ceiling_explain(options: argparse.Namespace) -> int:
    from mxc_kernel.policy import canonical, load_ceiling
    from mxc_kernel.views import Code, Paragraph, Table, notice

    ceiling = load_ceiling(notebook_dir=os.getcwd())
    why = ceiling.explain(canonical(options.path, base=os.getcwd()))
    rows = tuple((name, held.words, Code(at or "")) for name, held, at in why.layers)
    layers = [Table(("layer", "access", "granted at"), rows)] if rows else []
    _say(notice(f"{why.path}: {why.access.words}", Paragraph((why.reason,)), *layers).text)
    return 0


def _ceiling_schema(_options: argparse.Namespace) -> int:
    from mxc_kernel.policy import ceiling_schema

    _say(json.dumps(ceiling_schema(), indent=2))
    return 0


def _say(line: str) -> None:
    print(line, flush=True)

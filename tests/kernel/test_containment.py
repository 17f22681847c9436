"""What the sandbox takes away, seen from the host, each with the same thing succeeding."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from .conftest import Folders, Kernel, Start


def test_reading_a_granted_folder_works_and_writing_it_does_not(
    kernel: Kernel, folders: Folders
) -> None:
    report = folders.documents / "report.txt"
    assert kernel.run(f"print(open({str(report)!r}).read())").stream().strip() == "figures"
    result = kernel.run(f"open({str(report)!r}, 'w').write('changed')")
    assert result.error.startswith("OSError") or "Read-only" in result.error
    assert report.read_text() == "figures\n"


def test_a_write_grant_reaches_the_host(kernel: Kernel, folders: Folders) -> None:
    target = folders.downloads / "new.txt"
    write = f"open({str(target)!r}, 'w').write('made')"
    assert kernel.run(write).status == "error"
    assert not target.exists()
    assert kernel.run(f"%allow_rw {folders.downloads}\n{write}").status == "ok"
    assert target.read_text() == "made"


def test_what_is_not_granted_is_not_there(kernel: Kernel, folders: Folders) -> None:
    private = folders.outside / "private.txt"
    assert kernel.run(f"open({str(private)!r}).read()").error.startswith("FileNotFoundError")
    granted = folders.documents / "report.txt"
    assert kernel.run(f"open({str(granted)!r}).read()").value == "'figures\\n'"


def test_a_symbolic_link_does_not_lead_out(kernel: Kernel, folders: Folders) -> None:
    (folders.documents / "way-out").symlink_to(folders.outside)
    (folders.documents / "inside").symlink_to(folders.documents)
    escaped = kernel.run(f"open('{folders.documents}/way-out/private.txt').read()")
    assert escaped.error.startswith("FileNotFoundError")
    allowed = kernel.run(f"open('{folders.documents}/inside/report.txt').read()")
    assert allowed.value == "'figures\\n'"


def test_a_grant_beyond_the_ceiling_is_refused_and_runs_nothing(
    kernel: Kernel, folders: Folders
) -> None:
    marker = folders.downloads / "marker"
    code = f"open({str(marker)!r}, 'w').close()"
    result = kernel.run(f"%allow_rw {folders.downloads}\n%allow_rw {folders.outside}\n{code}")
    assert result.error.startswith("SandboxPolicyError")
    assert str(folders.outside) in result.error
    assert not marker.exists()
    # Nothing of the refused cell was granted, and the same without the excess works.
    assert kernel.run(code).status == "error"
    assert kernel.run(f"%allow_rw {folders.downloads}\n{code}").status == "ok"
    assert marker.exists()


def test_a_link_to_a_forbidden_folder_cannot_be_granted(kernel: Kernel, folders: Folders) -> None:
    link = folders.downloads / "innocent"
    link.symlink_to(folders.outside)
    result = kernel.run(f"%allow_rw {link}")
    assert result.error.startswith("SandboxPolicyError")
    real = folders.downloads / "real"
    real.mkdir()
    assert kernel.run(f"%allow_ro {real}").status == "ok"


def test_the_network_is_closed(kernel: Kernel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
        assert kernel.run(connect).status == "error"
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0] as accepted:
            assert accepted.getpeername()[0] == "127.0.0.1"


def test_secrets_of_the_environment_stay_outside(start: Start, ceiling: Path) -> None:
    env = {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCY", "LC_TIME": "C.UTF-8"}
    kernel = start(ceiling, env=env)
    seen = kernel.run(
        "import os, glob\n"
        "def read(path):\n"
        "    try: return open(path, 'rb').read()\n"
        "    except PermissionError: return path\n"  # that of init is closed to it
        "environs = [read(path) for path in glob.glob('/proc/[0-9]*/environ')]\n"
        "print(dict(os.environ), environs, open('/proc/1/cmdline').read())"
    ).stream()
    assert "LC_TIME" in seen
    assert "wJalrXUtnFEMI" not in seen
    assert "AWS_SECRET" not in seen


def test_the_child_is_an_unprivileged_user_without_capabilities(kernel: Kernel) -> None:
    status = kernel.run("print(open('/proc/self/status').read())").stream()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    uid = int(kernel.run("import os; print(os.getuid())").stream())
    assert uid == (os.getuid() or uid)
    assert uid != 0


def test_the_child_has_no_descriptor_of_the_host(kernel: Kernel) -> None:
    links = kernel.run(
        "import os\n"
        "for fd in sorted(map(int, os.listdir('/proc/self/fd'))):\n"
        "    try: print(fd, os.readlink(f'/proc/self/fd/{fd}'))\n"
        "    except OSError: pass"
    ).stream()
    assert links
    assert "memfd" not in links
    for line in links.splitlines():
        _, target = line.split(" ", 1)
        assert (
            target.split(":")[0] in ("pipe", "socket", "anon_inode")
            or target
            in (
                "/dev/null",
                "/proc/1/fd",
            )
            or target.startswith(("/proc/", "/dev/", "/tmp/"))
        ), line


def test_there_is_no_terminal(kernel: Kernel) -> None:
    assert kernel.run("open('/dev/tty')").error.startswith("OSError")


def test_unix_sockets_of_the_host_are_out_of_reach(kernel: Kernel, folders: Folders) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0mxc-kernel-test")
        server.listen()
        connect = "import socket; socket.socket(socket.AF_UNIX).connect('\\0mxc-kernel-test')"
        assert kernel.run(connect).error.startswith("ConnectionRefusedError")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("\0mxc-kernel-test")


def test_a_module_beside_the_notebook_is_not_imported_by_the_host(
    start: Start, ceiling: Path, folders: Folders
) -> None:
    marker = folders.downloads / "imported-by"
    plant = f"open({str(marker)!r}, 'a').write(__name__ + '\\n')\nraise ImportError\n"
    for name in ("zmq", "json", "pydantic", "mxc_kernel"):
        (folders.documents / f"{name}.py").write_text(plant)
    kernel = start(ceiling, cwd=folders.documents, env={"PYTHONPATH": "."})
    assert kernel.run("1 + 1").value == "2"
    assert not marker.exists()
    # The plant works where a folder is on the path: in the sandbox, for the notebook's own code.
    (folders.documents / "planted.py").write_text("value = 'imported'\n")
    assert kernel.run("import planted; planted.value").value == "'imported'"


def test_scratch_is_private_and_gone_at_the_end(kernel: Kernel) -> None:
    path = (
        kernel.run(
            "import os, pathlib\n"
            "p = pathlib.Path.home() / 'note.txt'; p.write_text('kept'); print(p)"
        )
        .stream()
        .strip()
    )
    assert kernel.run("p.read_text()").value == "'kept'"
    assert not Path(path).exists()


def test_new_files_belong_to_the_sandboxs_user(kernel: Kernel, folders: Folders) -> None:
    kernel.run(f"%allow_rw {folders.downloads}")
    uid = int(kernel.run("import os; print(os.getuid())").stream())
    kernel.run(f"open('{folders.downloads}/mine', 'w').close()")
    info = (folders.downloads / "mine").stat()
    assert info.st_uid == uid
    assert not info.st_mode & (stat.S_ISUID | stat.S_IWOTH)


def test_without_a_ceiling_nothing_is_granted_and_cells_run(start: Start, folders: Folders) -> None:
    kernel = start(None, cwd=folders.documents)
    assert kernel.run("sum(range(10))").value == "45"
    assert kernel.run(f"open('{folders.documents}/report.txt')").status == "error"
    refused = kernel.run(f"%allow_ro {folders.documents}")
    assert refused.error.startswith("SandboxPolicyError")
    assert "mxc-kernel init" in "\n".join(refused.of_type("error")[0]["content"]["traceback"])

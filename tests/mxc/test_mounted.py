"""Two tables of mounts compared, over whatever tables there may be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mxc_kernel.mxc import mounted
from mxc_kernel.mxc.mounted import Mount
from mxc_kernel.policy import Access, Filesystem, MountPlan

HOST = [
    Mount(1, "8:1", "/", "/", True, "ext4"),
    Mount(2, "0:20", "/", "/tmp", True, "tmpfs"),
    Mount(3, "0:21", "/", "/dev/shm", True, "tmpfs"),
    Mount(4, "8:2", "/@home", "/home", True, "btrfs"),
    Mount(5, "0:5", "/", "/proc", True, "proc"),
    Mount(6, "0:6", "/", "/dev", True, "devtmpfs"),
    Mount(7, "8:3", "/", "/home/ada/disk", True, "ext4"),
]
PLAN = MountPlan(
    Filesystem.of(
        readonly=["/home/ada"],
        readwrite=["/home/ada/w"],
        denied=["/home/ada/w/d", "/home/ada/w/secret.txt"],
    ),
    readonly=("/home/ada",),
    readwrite=("/home/ada/w",),
    denied=("/home/ada/w/d", "/home/ada/w/secret.txt"),
)
RIGHT = [
    Mount(20, "0:50", "/newroot", "/", True, "tmpfs"),
    Mount(21, "8:1", "/usr/bin", "/usr/bin", False, "ext4"),
    Mount(22, "0:51", "/", "/dev", True, "tmpfs"),
    Mount(23, "0:6", "/null", "/dev/null", True, "devtmpfs"),
    Mount(24, "0:52", "/", "/proc", True, "proc"),
    Mount(25, "0:53", "/", "/tmp", True, "tmpfs"),
    Mount(26, "8:2", "/@home/ada", "/home/ada", False, "btrfs"),
    Mount(27, "8:3", "/", "/home/ada/disk", False, "ext4"),
    Mount(28, "8:2", "/@home/ada/w", "/home/ada/w", True, "btrfs"),
    Mount(29, "0:54", "/", "/home/ada/w/d", True, "tmpfs"),
    Mount(30, "8:1", "/opt/python", "/opt/python", False, "ext4"),
    Mount(31, "0:6", "/null", "/home/ada/w/secret.txt", False, "devtmpfs"),
]
NEEDED = {"readonly": ("/opt/python",)}
places = st.sampled_from(
    [*{mount.point for mount in (*HOST, *RIGHT)}, "/etc", "/etcetera", "/root", "/home", "/mnt"]
)
mounts = st.builds(
    Mount,
    st.integers(100, 200),
    st.sampled_from([mount.device for mount in (*HOST, *RIGHT)] + ["0:99"]),
    places,
    places,
    st.booleans(),
    st.sampled_from(["ext4", "tmpfs", "proc", "btrfs", "devtmpfs", "sysfs", "overlay"]),
)


def host_path(mount: Mount) -> str | None:
    """The host path that a mount shows, worked out the other way round than the code does."""
    best: tuple[int, str] | None = None
    for of in HOST:
        if of.device == mount.device and (mount.root + "/").startswith(of.root.rstrip("/") + "/"):
            path = (of.point.rstrip("/") + mount.root[len(of.root.rstrip("/")) :]) or "/"
            found = (len(of.root), path.rstrip("/") or "/")
            best = max(best, found) if best else found
    return best[1] if best else None


def test_the_right_table_passes() -> None:
    assert mounted.compare(HOST, RIGHT, PLAN, **NEEDED) is None


@given(extra=st.lists(mounts, max_size=4))
def test_what_passes_shows_nothing_that_was_not_granted(extra: list[Mount]) -> None:
    if mounted.compare(HOST, [*RIGHT, *extra], PLAN, **NEEDED) is not None:
        return
    for mount in extra:
        path = host_path(mount)
        if path is None or path.startswith("/dev/null"):
            assert mount.kind in ("tmpfs", "proc", "devpts")
            continue
        access = PLAN.filesystem.access(path)
        baseline = path.startswith(("/usr/bin", "/etc", "/opt/python")) and path != "/etcetera"
        assert access > Access.NONE or baseline
        assert not mount.writable or access is Access.READWRITE


@given(index=st.integers(0, len(RIGHT) - 1))
def test_a_mount_of_the_policy_that_is_missing_or_elsewhere_does_not_pass(index: int) -> None:
    old = RIGHT[index]
    rest = [*RIGHT[:index], *RIGHT[index + 1 :]]
    if old.point in (*PLAN.readonly, *PLAN.readwrite, *PLAN.denied):
        assert mounted.compare(HOST, rest, PLAN, **NEEDED) == f"{old.point} is not mounted"
    if old.device in {mount.device for mount in HOST}:
        elsewhere = old._replace(root=old.root + "/elsewhere")
        problem = mounted.compare(HOST, [*rest, elsewhere], PLAN, **NEEDED)
        assert problem is not None
        assert "shows another place of the host" in problem


def test_names_with_blanks_and_backslashes(tmp_path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text(
        "36 35 98:0 /a\\040b /c\\134d\\011\\012 rw,noatime master:1 - ext3 /dev/root rw,errors=x\n"
    )
    assert mounted.read(str(file)) == [Mount(36, "98:0", "/a b", "/c\\d\t\n", True, "ext3")]

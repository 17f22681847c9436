"""The worker needs nothing of the host's but stdin, stdout and stderr, on every system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import MAGIC_NUMBER

from mxc_kernel.mxc import bundle
from mxc_kernel.wire import Channel, FrameReader, encode


def test_nothing_but_the_three_pipes_is_kept(tmp_path: object) -> None:
    """A descriptor that some launcher leaks is closed; the three that are used move up."""
    leak, far = os.pipe()
    os.set_inheritable(leak, True)
    process = subprocess.Popen(
        bundle.command(sys.executable),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        pass_fds=(leak,),
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        leaked = os.readlink(f"/proc/self/fd/{leak}")
        assert os.readlink(f"/proc/{process.pid}/fd/{leak}") == leaked  # the control
        process.stdin.write(bundle.build(MAGIC_NUMBER))
        settings = json.dumps({"scratch": str(tmp_path)}).encode()
        for fragment in encode(Channel.HELLO, [b"nonce", settings]):
            process.stdin.write(fragment)
        frames = FrameReader(process.stdout.fileno()).frames()
        channel, parts = next(frames)
        assert (channel, parts[0]) == (Channel.HELLO, b"nonce")
        folder = f"/proc/{process.pid}/fd"
        opened = {os.readlink(f"{folder}/{number}") for number in os.listdir(folder)}
        pipes = {
            os.readlink(f"/proc/self/fd/{stream.fileno()}")
            for stream in (process.stdin, process.stdout, process.stderr)
        }
        assert leaked not in opened
        assert pipes <= opened
        kept = {target for target in opened if target.startswith("pipe:")}
        assert kept == pipes  # and ipykernel is not loaded yet, which makes pipes of its own
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        os.close(leak)
        os.close(far)

"""Pipes with a thread each: what Windows needs, and what holds on every system."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mxc_kernel.mxc.pipes import ThreadedPipes

MIB = 1 << 20


@dataclass
class Far:
    """The child's ends."""

    stdin: int
    stdout: int
    stderr: int


@dataclass
class Pair:
    pipes: ThreadedPipes
    far: Far

    def close(self) -> None:
        for fd in (self.far.stdin, self.far.stdout, self.far.stderr):
            try:
                os.close(fd)
            except OSError:
                continue  # the test closed it
        self.pipes.close()
        for end in (self.pipes._outlet, self.pipes._frames, self.pipes._diagnostics):
            end._thread.join(30)
            assert not end._thread.is_alive()


def connected() -> Pair:
    stdin, stdout, stderr = os.pipe(), os.pipe(), os.pipe()
    pipes = ThreadedPipes(stdin[1], stdout[0], stderr[0])
    return Pair(pipes, Far(stdin[0], stdout[1], stderr[1]))


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = connected()
    yield made
    made.close()


async def reading(pipes: ThreadedPipes, size: int = MIB) -> bytes:
    """Read to the end, only ever when told that there is something."""
    told = asyncio.Event()
    pipes.watch(asyncio.get_running_loop(), told.set, lambda: None)
    data = b""
    while True:
        try:
            some = pipes.read(size)
        except BlockingIOError:
            await asyncio.wait_for(told.wait(), 30)
            told.clear()
            continue
        if not some:
            return data
        data += some


def feed(fd: int, chunks: list[bytes]) -> threading.Thread:
    def run() -> None:
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
        os.close(fd)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=200_000), max_size=5), st.integers(1, 70_000))
def test_what_is_written_is_read_whatever_the_pieces(chunks: list[bytes], size: int) -> None:
    pair = connected()
    thread = feed(pair.far.stdout, chunks)
    assert asyncio.run(reading(pair.pipes, size)) == b"".join(chunks)
    thread.join()
    pair.far.stdout = -1
    pair.close()


def test_nothing_there_is_no_end(pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        pair.pipes.read(10)
    with pytest.raises(BlockingIOError):
        pair.pipes.read_stderr(10)


def test_no_more_is_read_ahead_than_the_bound(pair: Pair) -> None:
    """A child that floods the pipe has to wait, as long as nobody takes what it has sent."""
    sent = 0
    os.set_blocking(pair.far.stdout, False)
    frames = pair.pipes._frames
    while not (frames._size >= MIB and sent > MIB):
        try:
            sent += os.write(pair.far.stdout, bytes(65536))
        except BlockingIOError:
            if frames._size >= MIB:
                break
    assert frames._size <= MIB + 65536
    assert asyncio.run(first_megabyte(pair.pipes)) >= MIB  # the control: it goes on


async def first_megabyte(pipes: ThreadedPipes) -> int:
    got = 0
    told = asyncio.Event()
    pipes.watch(asyncio.get_running_loop(), told.set, lambda: None)
    while got < MIB:
        try:
            got += len(pipes.read(MIB))
        except BlockingIOError:
            await asyncio.wait_for(told.wait(), 30)
            told.clear()
    return got


def test_a_full_pipe_is_told_and_so_is_room(pair: Pair) -> None:
    async def run() -> bytes:
        sent, room = b"", asyncio.Event()
        data = os.urandom(64) * (6 * MIB // 64)
        view = memoryview(data)
        full = 0
        while view:
            try:
                view = view[pair.pipes.write(view) :]
            except BlockingIOError:
                full += 1
                pair.pipes.watch_writes(asyncio.get_running_loop(), room.set)
                if full == 1:
                    reader = threading.Thread(target=take)
                    reader.start()
                await asyncio.wait_for(room.wait(), 30)
                room.clear()
                pair.pipes.watch_writes(asyncio.get_running_loop(), None)
        assert full
        while len(b"".join(taken)) < len(data):
            await asyncio.sleep(0)
        sent = data
        os.close(pair.far.stdin)
        return sent

    taken: list[bytes] = []

    def take() -> None:
        try:
            while sum(map(len, taken)) < 6 * MIB:
                taken.append(os.read(pair.far.stdin, MIB))
        except OSError:
            return

    assert asyncio.run(run()) == b"".join(taken)


def test_a_reader_that_is_gone_is_a_broken_pipe(pair: Pair) -> None:
    os.close(pair.far.stdin)

    async def run() -> None:
        told = asyncio.Event()
        pair.pipes.write(memoryview(b"x"))
        pair.pipes.watch_writes(asyncio.get_running_loop(), told.set)
        while True:
            try:
                pair.pipes.write(memoryview(b"x"))
            except BrokenPipeError:
                return
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), 30))


def test_what_came_before_somebody_watches_is_told_at_once(pair: Pair) -> None:
    os.write(pair.far.stdout, b"early")
    os.close(pair.far.stdout)
    assert asyncio.run(reading(pair.pipes)) == b"early"

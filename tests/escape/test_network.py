"""Attacks through the network, which is closed. The host hears nothing but its own controls."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .stage import Stage, outside

QUICK = 0.3  # seconds for what could still be on its way within one machine


@dataclass
class Listener:
    """Sockets of the host, of every kind, on one port of all its addresses."""

    port: int
    sockets: tuple[socket.socket, ...]

    def heard(self) -> bool:
        """Whether anything has arrived since the last time."""
        arrived = False
        while True:
            ready, _, _ = select.select(self.sockets, [], [], QUICK if not arrived else 0)
            if not ready:
                return arrived
            for each in ready:
                arrived = True
                if each.type == socket.SOCK_STREAM:
                    each.accept()[0].close()
                else:
                    each.recv(65536)


def own_address() -> str:
    """An address of this machine other than the loopback's, if it has any."""
    with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return str(probe.getsockname()[0])
    return "127.0.0.2"


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        port = first.getsockname()[1]
        sockets = [first]
        for family, kind, host in (
            (socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0"),
            (socket.AF_INET6, socket.SOCK_STREAM, "::"),
            (socket.AF_INET6, socket.SOCK_DGRAM, "::"),
        ):
            each = stack.enter_context(socket.socket(family, kind))
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind((host, port))
            if kind == socket.SOCK_STREAM:
                each.listen()
            sockets.append(each)
        yield Listener(port, tuple(sockets))


ATTEMPTS = {
    "tcp": "socket.create_connection(('127.0.0.1', port), 5).send(b'x')",
    "tcp-by-name": "socket.create_connection(('localhost', port), 5).send(b'x')",
    "tcp-to-the-machine-s-address": "socket.create_connection((address, port), 5).send(b'x')",
    "tcp-to-address-zero": "socket.create_connection(('0.0.0.0', port), 5).send(b'x')",
    "tcp-written-as-a-number": "socket.create_connection(('0x7f000001', port), 5).send(b'x')",
    "tcp-another-loopback-address": "socket.create_connection(('127.1.2.3', port), 5).send(b'x')",
    "tcp-6": "socket.create_connection(('::1', port), 5).send(b'x')",
    "tcp-4-in-6": "socket.create_connection(('::ffff:127.0.0.1', port), 5).send(b'x')",
    "udp": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
    "udp-to-the-machine-s-address": (
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', (address, port))"
    ),
    "udp-6": ("socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', ('::1', port))"),
    "a-question-to-a-name-server": (
        "socket.socket(type=socket.SOCK_DGRAM).sendto("
        "bytes.fromhex('123401000001000000000000') + b'\\x06secret\\x07example\\0\\0\\1\\0\\1',"
        " (address, port))"
    ),
    "fast-open": ("socket.socket().sendto(b'x', socket.MSG_FASTOPEN, ('127.0.0.1', port))"),
    "bound-to-a-device": (
        "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo');"
        " s.connect(('127.0.0.1', port))"
    ),
    "a-program": (
        "subprocess.run(['bash', '-c', f'echo x > /dev/tcp/127.0.0.1/{port}'],"
        " stderr=subprocess.DEVNULL)"
    ),
    "http": "import urllib.request as u; u.urlopen(f'http://127.0.0.1:{port}/', timeout=1).read()",
    "asyncio": (
        "import asyncio, contextlib; t = threading.Thread(target=asyncio.run, args=("
        "asyncio.open_connection('127.0.0.1', port),)); t.start(); t.join()"
    ),
    "a-thread-of-its-own": (
        "t = threading.Thread(target=tried, args=(socket.create_connection,"
        " ('127.0.0.1', port), 5)); t.start(); t.join()"
    ),
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_nothing_arrives(stage: Stage, listener: Listener, attempt: str) -> None:
    """The same line of code, run outside, is heard."""
    code = f"port, address = {listener.port}, {own_address()!r}\ndef attempt():\n    {attempt}\n"
    assert not listener.heard()
    stage.run(f"{code}answer = tried(attempt)")
    assert not listener.heard()
    outside(f"{code}tried(attempt)")
    assert listener.heard()


@pytest.mark.parametrize(
    ("family", "address"),
    [
        pytest.param("AF_INET", "169.254.169.254", id="cloud-metadata"),
        pytest.param("AF_INET", "169.254.170.2", id="container-credentials"),
        pytest.param("AF_INET", "100.100.100.200", id="another-cloud-s-metadata"),
        pytest.param("AF_INET6", "fd00:ec2::254", id="cloud-metadata-6"),
        pytest.param("AF_INET", "172.17.0.1", id="docker-s-bridge"),
        pytest.param("AF_INET", "10.0.2.2", id="slirp-s-way-to-the-host"),
        pytest.param("AF_INET", "1.1.1.1", id="the-internet"),
        pytest.param("AF_INET6", "2606:4700:4700::1111", id="the-internet-6"),
        pytest.param("AF_INET", "224.0.0.251", id="multicast-names"),
        pytest.param("AF_INET6", "ff02::fb%1", id="multicast-names-6"),
        pytest.param("AF_INET", "255.255.255.255", id="broadcast"),
    ],
)
def test_there_is_no_route(stage: Stage, family: str, address: str) -> None:
    """Asked without sending: connecting a datagram socket only looks a route up."""
    ask = f"""
s = socket.socket(socket.{family}, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
def route(address):
    where = socket.getaddrinfo(address, 9, socket.{family}, socket.SOCK_DGRAM)[0][4]
    s.connect(where)
    return s.getsockname()[0]
"""
    answer = stage.value(f"{ask}answer = tried(route, {address!r})")
    if address.startswith("ff02"):  # the loopback is a link, with nobody else on it
        assert answer in ("ENETUNREACH", "EADDRNOTAVAIL", "::1")
    else:
        assert answer == "ENETUNREACH"
    loopback = "::1" if family == "AF_INET6" else "127.0.0.1"
    assert stage.value(f"{ask}answer = tried(route, {loopback!r})") == loopback


def test_names_are_not_looked_up(stage: Stage) -> None:
    names = ["example.com", "metadata.google.internal", "host.docker.internal", "x.local"]
    code = "answer = [tried(socket.getaddrinfo, name, 80) for name in {}]"
    assert stage.value(code.format(names)) == ["gaierror"] * 4 or set(
        stage.value(code.format(names))
    ) <= {"gaierror", "EAI_AGAIN"}
    found = stage.value("answer = socket.gethostbyname('localhost')")
    assert found == "127.0.0.1"


@pytest.mark.parametrize(
    "path",
    """
    /run/nscd/socket /var/run/nscd/socket /run/systemd/resolve/io.systemd.Resolve
    /run/dbus/system_bus_socket /run/avahi-daemon/socket
    """.split(),  # noqa: SIM905 - easier to read
)
def test_no_service_that_would_look_names_up(stage: Stage, path: str) -> None:
    answer = stage.value(f"answer = tried(socket.socket(socket.AF_UNIX).connect, {path!r})")
    assert answer == "ENOENT"


@pytest.mark.parametrize(
    ("kind", "refusal"),
    [
        ("socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP", "EPERM"),
        ("socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6", "EPERM"),
        ("socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW", "EPERM"),
        ("socket.AF_PACKET, socket.SOCK_RAW, 0", "EAFNOSUPPORT"),
    ],
    ids=["icmp", "icmp-6", "raw", "packet"],
)
def test_no_raw_packets(stage: Stage, kind: str, refusal: str) -> None:
    assert stage.value(f"answer = tried(socket.socket, {kind})") == refusal
    assert stage.value("answer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).proto") == 0
    if os.geteuid() == 0:
        outside(f"socket.socket({kind}).close()")


def netlink(kind: int, body: bytes) -> bytes:
    """A request to change the network (rtnetlink(7)), with acknowledgement."""
    return struct.pack("=IHHII", 16 + len(body), kind, 0x605, 1, 0) + body


ATTRIBUTE = struct.Struct("=HH")
CHANGES = {
    "a-dummy-interface": netlink(
        16,
        struct.pack("=BxHiII", 0, 0, 0, 1, 1)
        + ATTRIBUTE.pack(16, 18)
        + ATTRIBUTE.pack(12, 14)
        + ATTRIBUTE.pack(1, 9)
        + b"dummy\0\0\0"
        + b"\0\0",
    ),
    "an-address": netlink(
        20, struct.pack("=BBBBi", 2, 8, 0, 0, 1) + ATTRIBUTE.pack(2, 8) + bytes((10, 9, 9, 9))
    ),
    "a-route": netlink(
        24,
        struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 0, 1, 0)
        + ATTRIBUTE.pack(4, 8)
        + struct.pack("=i", 1),
    ),
}


@pytest.mark.parametrize("request_bytes", CHANGES.values(), ids=CHANGES)
def test_the_sandbox_cannot_change_its_network(stage: Stage, request_bytes: bytes) -> None:
    ask = """
def ask(request):
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    s.send(request)
    data = s.recv(4096)
    import struct
    return struct.unpack_from('=HHIIi', data, 4)[0], struct.unpack_from('=i', data, 16)[0]
"""
    answer = stage.value(f"{ask}answer = ask({request_bytes!r})")
    assert answer == (2, -1)  # NLMSG_ERROR, EPERM
    listing = netlink(18, struct.pack("=BxHiII", 0, 0, 0, 0, 0)).replace(
        struct.pack("=H", 0x605), struct.pack("=H", 0x301), 1
    )
    assert stage.value(f"{ask}answer = ask({listing!r})")[0] == 16  # RTM_NEWLINK: it may be asked


def test_the_host_s_network_is_not_seen(stage: Stage) -> None:
    tables = stage.value(
        "answer = {name: open(f'/proc/net/{name}').read() for name in ('dev', 'route')}"
    )
    interfaces = [line.split(":")[0].strip() for line in tables["dev"].splitlines()[2:]]
    assert interfaces == ["lo"]
    assert len(tables["route"].splitlines()) <= 1
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = f":{server.getsockname()[1]:04X} "
        assert port not in stage.value("answer = open('/proc/net/tcp').read()")
        with open("/proc/net/tcp") as file:
            assert port in file.read()


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6"])
def test_what_listens_in_the_sandbox_is_not_reached_from_the_host(
    stage: Stage, family: str
) -> None:
    """Else another program of the machine would be a way in, and data a way out."""
    any_address, loopback = ("", "127.0.0.1") if family == "AF_INET" else ("::", "::1")
    port = stage.value(
        f"server = socket.create_server(({any_address!r}, 0), family=socket.{family})\n"
        "answer = server.getsockname()[1]"
    )
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((loopback, port), 5)
    connect = f"socket.create_connection(({loopback!r}, {port}), 5)\nanswer = 'reached'"
    assert stage.value(connect) == "reached"


def test_no_proxy_is_passed_on(stage: Stage, listener: Listener) -> None:
    """A proxy's address often holds a password, and its port would be the host's."""
    url = f"http://user:hunter2secret@127.0.0.1:{listener.port}"
    names = ("http_proxy", "https_proxy", "ALL_PROXY", "no_proxy")
    kernel = stage.start(env=dict.fromkeys(names, url))
    shown = kernel.run(f"print([name for name in {names!r} if name in os.environ])")
    assert shown.stream().strip() == "[]"
    fetch = "import urllib.request as u; tried(u.urlopen, 'http://example.com/', timeout=3)"
    kernel.run(fetch)
    assert not listener.heard()
    outside(fetch, env={**os.environ, "http_proxy": url})
    assert listener.heard()
    stage.end(kernel)


def test_a_relaunch_does_not_open_the_network(stage: Stage, listener: Listener) -> None:
    connect = f"tried(socket.create_connection, ('127.0.0.1', {listener.port}), 5)"
    for cell in (
        f"%%allow_ro {stage.extra}\n{connect}",
        f"%%sandbox --ro {stage.extra}\nimport socket\n{connect[6:].replace(', (', '((')}",
        f"%sandbox restart\n{connect}",
    ):
        stage.run(cell)
    assert not listener.heard()
    outside(connect)
    assert listener.heard()

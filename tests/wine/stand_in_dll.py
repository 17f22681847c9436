"""Makes the few Windows functions that ``wxc-exec.exe`` imports and Wine 8 does not have.

A 64-bit DLL is written byte by byte, so that no compiler for Windows is needed. Its functions are
forwarded to another DLL, return a fixed number, or are a few bytes of machine code.
https://learn.microsoft.com/windows/win32/debug/pe-format
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

__all__ = ["STAND_INS", "build"]

_BASE = 0x1000  # where the one section lies in memory
_ALIGN = 512  # of the file
_NOT_IMPLEMENTED = 0x80004001  # E_NOTIMPL
# S-1-15-2-1-…-7: an AppContainer's form. Its name is only printed in a dry run.
_SID = struct.pack(">BBHI", 1, 8, 0, 15) + struct.pack("<8I", 2, 1, 2, 3, 4, 5, 6, 7)

Function = str | int | bytes
STAND_INS: Mapping[str, Mapping[str, Function]] = {
    # BOOL ProcessPrng(PBYTE, SIZE_T) is what advapi32 calls SystemFunction036.
    "bcryptprimitives.dll": {"ProcessPrng": "advapi32.SystemFunction036"},
    "userenv.dll": {
        # lea rax, [rip+6]; mov [rdx], rax; xor eax, eax; ret — and the SID behind it
        "DeriveAppContainerSidFromAppContainerName": bytes.fromhex("488d0506000000488902 31c0c3")
        + _SID,
        "CreateAppContainerProfile": _NOT_IMPLEMENTED,
        "DeleteAppContainerProfile": _NOT_IMPLEMENTED,
        "CreateEnvironmentBlock": 0,
        "DestroyEnvironmentBlock": 0,
    },
}


def build(name: str, functions: Mapping[str, Function]) -> bytes:
    """Return the bytes of a DLL.

    Args:
        name: its file name.
        functions: by name, where it is forwarded to, the number that it returns, or its code.
    """
    section, size = _section(name, functions)
    section += bytes(-size % _ALIGN)
    in_memory = _BASE + len(section) + -len(section) % 0x1000
    dos = b"MZ" + bytes(58) + struct.pack("<I", 64)
    file_header = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x2022)
    optional = struct.pack(
        "<HBBIIIIIQIIHHHHHHIIIIHHQQQQII",
        *(0x20B, 14, 0, len(section), len(section), 0, 0, _BASE),
        *(0x180000000, 0x1000, _ALIGN, 6, 0, 0, 0, 6, 0, 0),
        *(in_memory, _ALIGN, 0, 2, 0x160, 0x100000, 0x1000, 0x100000, 0x1000, 0, 16),
    )
    directories = struct.pack("<II", _BASE, size) + bytes(8 * 15)  # the exports, and no other
    table = b".text\0\0\0" + struct.pack(
        "<IIIIIIHHI", len(section), _BASE, len(section), _ALIGN, 0, 0, 0, 0, 0x60000020
    )
    headers = dos + b"PE\0\0" + file_header + optional + directories + table
    return headers + bytes(_ALIGN - len(headers)) + section


def _section(name: str, functions: Mapping[str, Function]) -> tuple[bytes, int]:
    """Return the export directory with the code behind it, and the directory's own size.

    An address inside of the directory is that of a forward, one outside that of code.
    """
    names = sorted(functions)
    count = len(names)
    addresses, pointers, ordinals = 40, 40 + 4 * count, 40 + 8 * count
    data = bytearray(40 + 10 * count)

    def add(content: bytes) -> int:
        data.extend(content)
        return _BASE + len(data) - len(content)

    title = add(name.encode() + b"\0")
    for number, each in enumerate(names):
        struct.pack_into("<I", data, pointers + 4 * number, add(each.encode() + b"\0"))
        struct.pack_into("<H", data, ordinals + 2 * number, number)
    size = len(data)
    forwarded = [each for each in names if isinstance(functions[each], str)]
    for each in (*forwarded, *(each for each in names if each not in forwarded)):
        address = add(_content(functions[each]))
        struct.pack_into("<I", data, addresses + 4 * names.index(each), address)
        size = len(data) if each in forwarded else size
    lists = (_BASE + addresses, _BASE + pointers, _BASE + ordinals)
    struct.pack_into("<IIHHIIIIIII", data, 0, 0, 0, 0, 0, title, 1, count, count, *lists)
    return bytes(data), size


def _content(what: Function) -> bytes:
    if isinstance(what, str):
        return what.encode() + b"\0"
    if isinstance(what, bytes):
        return what
    return b"\xb8" + struct.pack("<I", what) + b"\xc3"  # mov eax, number; ret

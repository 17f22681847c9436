"""How a program on Windows gets its arguments out of the one line that it is given."""

from __future__ import annotations

__all__ = ["split_as_windows"]


def split_as_windows(line: str) -> list[str]:
    """Take a command line apart as the C runtime does it.

    https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments
    """
    arguments: list[str] = []
    at = 0
    while at < len(line):
        while at < len(line) and line[at] in " \t":
            at += 1
        if at == len(line):
            break
        word, quoted = "", False
        while at < len(line) and (quoted or line[at] not in " \t"):
            slashes = len(line[at:]) - len(line[at:].lstrip("\\"))
            at += slashes
            if line[at : at + 1] == '"':
                word += "\\" * (slashes // 2)
                if slashes % 2:
                    word += '"'
                else:
                    quoted = not quoted
                at += 1
            elif slashes:
                word += "\\" * slashes
            else:
                word += line[at]
                at += 1
        arguments.append(word)
    return arguments

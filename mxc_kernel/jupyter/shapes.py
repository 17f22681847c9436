"""The shape of every message that the child may send: what stands in it, and nothing else.

One function for each type takes the content apart and puts a new one together from the fields that
the Jupyter messaging protocol 5.5 names (and ipykernel's own, where it goes beyond). So a field
that nobody knows never reaches a frontend, and whoever works on a content afterwards need not ask
what it is. By hand, since it runs for each message and pydantic takes 200 ms to import.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["PUBLICATIONS", "REPLIES", "WrongShapeError", "date", "input_request", "metadata"]

Content = dict[str, Any]

_NAME = 256  # characters of an id, a target or a message's name
_LARGEST = 2**53  # what a frontend in JavaScript can still count to
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?", re.ASCII)
_URL = re.compile(r"https?://[\x21-\x7e]{1,2000}")


class WrongShapeError(ValueError):
    """A message that is not what its type says. It is dropped; the message is the reason."""


def date(value: object) -> str | None:
    """Return a header's date (nbclient times cells with it) if it is one."""
    return value if isinstance(value, str) and _DATE.fullmatch(value) else None


def metadata(msg_type: str, given: Content) -> Content:
    """Return the metadata of a message that a frontend knows what to do with."""
    kept = _METADATA.get(msg_type, ())
    return {
        key: given[key]
        for key in kept
        if isinstance(given.get(key), bool) or (isinstance(given.get(key), str) and given[key])
    }


_METADATA = {
    "comm_open": ("version",),
    "execute_reply": ("started", "dependencies_met", "engine", "status"),
}


def _text(content: Content, key: str, default: str | None = None) -> str:
    value = content.get(key, default)
    if not isinstance(value, str):
        raise WrongShapeError(f"{key} is no text")
    return value


def _name(content: Content, key: str) -> str:
    value = _text(content, key)
    if len(value) > _NAME or not value.isprintable():
        raise WrongShapeError(f"{key} is no name")
    return value


def _number(content: Content, key: str) -> int:
    value = content.get(key)
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise WrongShapeError(f"{key} is no count")
    return value


def _object(content: Content, key: str) -> Content:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WrongShapeError(f"{key} is no object")
    return value


def _texts(content: Content, key: str) -> list[str]:
    value = content.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise WrongShapeError(f"{key} is no list of texts")
    return value


# --- publications -------------------------------------------------------------------------------


def _display(content: Content) -> Content:
    transient = _object(content, "transient")
    shown = {"data": _object(content, "data"), "metadata": _object(content, "metadata")}
    name = {"display_id": _name(transient, "display_id")} if transient.get("display_id") else {}
    return {**shown, "transient": name}


def _update(content: Content) -> Content:
    shown = _display(content)
    if not shown["transient"]:
        raise WrongShapeError("it updates no display")
    return shown


def _result(content: Content) -> Content:
    return {**_display(content), "execution_count": _number(content, "execution_count")}


def _error(content: Content) -> Content:
    return {
        "ename": _text(content, "ename"),
        "evalue": _text(content, "evalue"),
        "traceback": _texts(content, "traceback"),
    }


def _clear(content: Content) -> Content:
    return {"wait": content.get("wait") is True}


def _comm_open(content: Content) -> Content:
    module = content.get("target_module")
    return {
        "comm_id": _name(content, "comm_id"),
        "target_name": _name(content, "target_name"),
        "data": _object(content, "data"),
        **({"target_module": module} if module is None or isinstance(module, str) else {}),
    }


def _comm(content: Content) -> Content:
    return {"comm_id": _name(content, "comm_id"), "data": _object(content, "data")}


def _debug_event(content: Content) -> Content:
    _name(content, "event")
    return content


PUBLICATIONS: dict[str, Callable[[Content], Content]] = {
    "clear_output": _clear,
    "comm_close": _comm,
    "comm_msg": _comm,
    "comm_open": _comm_open,
    "debug_event": _debug_event,
    "display_data": _display,
    "error": _error,
    "execute_result": _result,
    "update_display_data": _update,
}
"""Every type on iopub but ``stream``, which the gate reads itself, and what the host announces."""


def input_request(content: Content) -> Content:
    """Return the content of a question to the user."""
    return {"prompt": _text(content, "prompt", ""), "password": content.get("password") is True}


# --- replies ------------------------------------------------------------------------------------


def _execute(content: Content) -> Content:
    payload = content.get("payload", [])
    if not isinstance(payload, list) or not all(isinstance(item, dict) for item in payload):
        raise WrongShapeError("payload is no list of objects")
    expressions = _object(content, "user_expressions")
    if not all(isinstance(item, dict) for item in expressions.values()):
        raise WrongShapeError("user_expressions holds other than objects")
    return {
        "execution_count": _number(content, "execution_count"),
        "user_expressions": {
            name: _expression(item) for name, item in expressions.items() if isinstance(name, str)
        },
        "payload": payload,
    }


def _expression(content: Content) -> Content:
    if content.get("status") != "ok":
        return {"status": "error", **_error(content)}
    return {
        "status": "ok",
        "data": _object(content, "data"),
        "metadata": _object(content, "metadata"),
    }


def _inspect(content: Content) -> Content:
    return {
        "found": content.get("found") is True,
        "data": _object(content, "data"),
        "metadata": _object(content, "metadata"),
    }


def _complete(content: Content) -> Content:
    return {
        "matches": _texts(content, "matches"),
        "cursor_start": _number(content, "cursor_start"),
        "cursor_end": _number(content, "cursor_end"),
        "metadata": _object(content, "metadata"),
    }


def _is_complete(content: Content) -> Content:
    status = content.get("status")
    if status not in ("complete", "incomplete", "invalid", "unknown"):
        raise WrongShapeError("status is unknown")
    return {"status": status, "indent": _text(content, "indent", "")}


def _history(content: Content) -> Content:
    entries = content.get("history")
    if not isinstance(entries, list):
        raise WrongShapeError("history is no list")
    return {"history": [entry for item in entries if (entry := _entry(item))]}


def _entry(item: Any) -> list[Any] | None:
    if not isinstance(item, list) or len(item) != 3:
        return None
    session, line, source = item
    if type(session) is not int or type(line) is not int:
        return None
    if isinstance(source, list):
        whole = len(source) == 2 and isinstance(source[0], str)
        output = source[1] if whole and isinstance(source[1], str) else None
        return [session, line, [source[0], output]] if whole else None
    return [session, line, source] if isinstance(source, str) else None


def _comm_info(content: Content) -> Content:
    comms = _object(content, "comms")
    return {
        "comms": {
            comm: {"target_name": _name(item, "target_name")}
            for comm, item in comms.items()
            if isinstance(item, dict) and len(comm) <= _NAME
        }
    }


def _kernel_info(content: Content) -> Content:
    features = content.get("supported_features", [])
    links = content.get("help_links", [])
    return {
        "protocol_version": _name(content, "protocol_version"),
        "implementation": _name(content, "implementation"),
        "implementation_version": _name(content, "implementation_version"),
        "language_info": {
            key: value
            for key, value in _object(content, "language_info").items()
            if isinstance(value, str | dict)
        },
        "banner": _text(content, "banner", ""),
        "help_links": [link for item in links if (link := _link(item))]
        if isinstance(links, list)
        else [],
        "debugger": content.get("debugger") is True,
        "supported_features": [item for item in features if isinstance(item, str)]
        if isinstance(features, list)
        else [],
    }


def _link(item: Any) -> Content | None:
    """Return an entry of the help menu; another scheme than the web's could run script."""
    if not isinstance(item, dict):
        return None
    text, url = item.get("text"), item.get("url")
    if not isinstance(text, str) or not isinstance(url, str) or not _URL.fullmatch(url):
        return None
    return {"text": text[:_NAME], "url": url}


def _usage(content: Content) -> Content:
    return {key: value for key, value in content.items() if _is_figure(value)}


def _is_figure(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(item, int | float) for item in value.values())
    return value is None or isinstance(value, int | float | str)


def _subshell(content: Content) -> Content:
    return {"subshell_id": _name(content, "subshell_id")}


def _subshells(content: Content) -> Content:
    return {"subshell_id": _texts(content, "subshell_id")}


def _nothing(content: Content) -> Content:  # noqa: ARG001
    return {}


def _debug(content: Content) -> Content:
    return content


_ANSWERS: dict[str, Callable[[Content], Content]] = {
    "comm_info_reply": _comm_info,
    "complete_reply": _complete,
    "create_subshell_reply": _subshell,
    "debug_reply": _debug,
    "delete_subshell_reply": _nothing,
    "execute_reply": _execute,
    "history_reply": _history,
    "inspect_reply": _inspect,
    "is_complete_reply": _is_complete,
    "kernel_info_reply": _kernel_info,
    "list_subshell_reply": _subshells,
    "usage_reply": _usage,
}


def _reply(read: Callable[[Content], Content]) -> Callable[[Content], Content]:
    """Return the shape of a reply, which may also say that its request failed."""

    def check(content: Content) -> Content:
        status = content.get("status")
        if status == "error":
            # ipykernel's own about subshells have nothing but the value.
            failed = _error({"ename": "", "traceback": [], **content})
            more = read(content) if read is _execute else {}
            return {"status": "error", **failed, **more}
        if status == "aborted":
            return {"status": "aborted"}
        if status not in ("ok", None) and read is not _is_complete:
            raise WrongShapeError("status is unknown")
        bare = status is None and read in (_debug, _usage)  # theirs have none
        return {**({} if bare else {"status": "ok"}), **read(content)}

    return check


REPLIES = {name: _reply(read) for name, read in _ANSWERS.items()}
"""Every reply that the child may give. The host gives the others itself."""

"""Comm messages of the child: which widgets live under which id, and what may be said to them.

A frontend acts on a comm message with the user's rights: it creates objects of classes that the
message names and sets their state. So the child may only open models of ipywidgets' own, and every
message is built anew from what is known to be harmless in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mxc_kernel.output.figures import Library, no_library
from mxc_kernel.output.rich import note
from mxc_kernel.output.traits import MODEL_ID, Around, Model
from mxc_kernel.output.widgets import find_model, safe_state
from mxc_kernel.policy import HtmlLevel

__all__ = ["Checked", "Comms"]

_WIDGET = "jupyter.widget"
_CONTROL = "jupyter.widget.control"
_MAX_MODELS = 250_000  # alive, 60 MB; a thousand progress bars are 11,000
_MAX_CLOSED = 10_000  # remembered; no message about a widget is under way for so long
_TEXT_ONLY = note("widgets", "only plain text is shown at this level", "safe")
_TOO_MANY = note("a widget", "there are too many")
_NO_FOCUS = note("focus", "a cell would take the keys that you type elsewhere")


@dataclass(frozen=True, slots=True)
class Checked:
    """What may pass of a comm message.

    Attributes:
        content: its content; None if nothing may.
        notes: one line for each thing that is left out, to be said once in a cell.
        buffers: the binary parts that go with the content, and no others.
    """

    content: dict[str, Any] | None
    notes: tuple[str, ...] = ()
    buffers: Sequence[bytes] = field(default=())


_NOTHING = Checked(None)


class Comms:
    """The comms of one child, for as long as it lives.

    Args:
        html: redacts markup before it is sanitised. The rest of a content is expected redacted.
        library: where the libraries come from that draw the figures in an Output widget.
    """

    def __init__(self, html: Callable[[str], str] = str, library: Library = no_library) -> None:
        self._html = html
        self._library = library
        self._models: dict[str, Model] = {}
        self._closed: dict[str, Model] = {}
        self._controls: set[str] = set()
        self._others: set[str] = set()  # known only to be closed with the child
        self._captures: dict[str, str] = {}

    def check(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        buffers: Sequence[bytes],
        level: HtmlLevel,
        parent: str | None = None,
    ) -> Checked:
        """Return what may pass of a comm message from the child.

        Args:
            msg_type: ``comm_open``, ``comm_msg`` or ``comm_close``.
            content: its content, any JSON object.
            buffers: its binary parts.
            level: how much is shown.
            parent: id of the request that it belongs to, if that is being worked on right now; the
                only one whose output an Output widget may take.

        At ``trusted`` everything passes. Of what was opened then, only ipywidgets' own models stay
        in use when the level is narrowed.
        """
        comm, data = content.get("comm_id"), content.get("data")
        if level >= HtmlLevel.TRUSTED:
            self._follow(msg_type, content)
            return Checked(dict(content), (), buffers)
        if not isinstance(comm, str):
            return _NOTHING
        if msg_type == "comm_close":
            return self._close(comm)
        if level < HtmlLevel.SAFE:
            return Checked(None, (_TEXT_ONLY,)) if msg_type == "comm_open" else _NOTHING
        if not isinstance(data, dict):
            return _NOTHING
        captures = (parent, self._captures.get(comm))
        around = Around(int(level), self._models.get, captures, self._html, [], self._library)
        if msg_type == "comm_open":
            checked = self._open(comm, content.get("target_name"), data, buffers, around)
        elif comm in self._controls:
            checked = self._all_states(comm, data, buffers, around)
        else:
            checked = self._message(comm, data, buffers, around)
        return checked

    def seen_from_frontend(self, msg_type: str, content: Mapping[str, Any]) -> None:
        """Note a comm that a frontend opens or closes; what it says on one needs no check.

        Args:
            msg_type: the message's type, of any kind.
            content: its content.
        """
        comm = content.get("comm_id")
        if (
            msg_type == "comm_open"
            and isinstance(comm, str)
            and content.get("target_name") == _CONTROL
        ):
            self._controls.add(comm)
        else:
            self._follow(msg_type, content)

    def shows(self, model_id: object) -> bool:
        """Whether a widget that may be shown lives under an id.

        Args:
            model_id: of a display of a widget, any JSON.
        """
        model = self._models.get(model_id) if isinstance(model_id, str) else None
        return model is not None and model.role == "view"

    def alive(self) -> list[str]:
        """Return the ids of the comms that a frontend has, which end with the child."""
        return sorted({*self._models, *self._controls, *self._others})

    def release(self, request: str) -> list[dict[str, Any]]:
        """Return the contents of messages after which no widget takes a request's output.

        Args:
            request: its id.

        Sent before what the host itself has to say at the end of a cell, which would else end up
        in a widget that nobody may be looking at.
        """
        taking = [comm for comm, taken in self._captures.items() if taken == request]
        for comm in taking:
            del self._captures[comm]
        return [_update(comm, "update", {"msg_id": ""}, []) for comm in taking]

    # --- the messages ---------------------------------------------------------------------------

    def _open(
        self,
        comm: str,
        target: object,
        data: Mapping[str, Any],
        buffers: Sequence[bytes],
        around: Around,
    ) -> Checked:
        if target != _WIDGET:
            reason = "it is not on the list of known harmless targets"
            return Checked(None, (note(f"messages to {target}", reason),))
        state = data.get("state")
        model = find_model(state) if isinstance(state, dict) else None
        if model is None or not isinstance(state, dict):
            return Checked(None, (_unknown(state),))
        if self._is_open(comm) or not MODEL_ID.fullmatch(comm):
            return _NOTHING
        # An id that becomes another model would change what others meant who refer to it.
        if self._closed.get(comm, model) is not model:
            return _NOTHING
        if len(self._models) >= _MAX_MODELS:
            return Checked(None, (_TOO_MANY,))
        shown = safe_state(model, state, _paths(data), buffers, around)
        self._models[comm] = model
        self._closed.pop(comm, None)
        self._note_capture(comm, shown.values)
        content = {
            "comm_id": comm,
            "target_name": _WIDGET,
            "data": {"state": shown.values, "buffer_paths": shown.paths},
        }
        return Checked(content, tuple(around.notes), shown.buffers)

    def _message(
        self, comm: str, data: Mapping[str, Any], buffers: Sequence[bytes], around: Around
    ) -> Checked:
        model = self._models.get(comm)
        method, state = data.get("method"), data.get("state")
        if model is None:
            return _NOTHING
        if method == "custom":
            return _custom(comm, data.get("content"))
        if method not in ("update", "echo_update") or not isinstance(state, dict):
            return _NOTHING
        if method == "echo_update" and "outputs" in state:
            # The frontend has them already. Sanitised twice they could look different.
            state = {trait: value for trait, value in state.items() if trait != "outputs"}
        shown = safe_state(model, state, _paths(data), buffers, around)
        if not shown.values and not shown.paths:
            return Checked(None, tuple(around.notes))
        self._note_capture(comm, shown.values)
        content = _update(comm, method, shown.values, shown.paths)
        return Checked(content, tuple(around.notes), shown.buffers)

    def _all_states(
        self, comm: str, data: Mapping[str, Any], buffers: Sequence[bytes], around: Around
    ) -> Checked:
        """The answer to a page that was reloaded: the states of all widgets."""
        states = data.get("states")
        if data.get("method") != "update_states" or not isinstance(states, dict):
            return _NOTHING
        paths: dict[str, list[Any]] = {}
        parts: dict[str, list[bytes]] = {}
        for path, buffer in zip(_paths(data), buffers, strict=False):
            if isinstance(path, list) and path and isinstance(path[0], str):
                paths.setdefault(path[0], []).append(path[1:])
                parts.setdefault(path[0], []).append(buffer)
        shown: dict[str, Any] = {}
        all_paths: list[list[str]] = []
        all_parts: list[bytes] = []
        for widget, entry in states.items():
            model = self._models.get(widget)
            state = entry.get("state") if isinstance(entry, dict) else None
            if model is None or not isinstance(state, dict) or find_model(state) is not model:
                continue
            around.captures = (self._captures.get(widget),)
            safe = safe_state(model, state, paths.get(widget, ()), parts.get(widget, ()), around)
            shown[widget] = {
                "model_name": model.name,
                "model_module": state["_model_module"],
                "model_module_version": safe.values.get("_model_module_version"),
                "state": safe.values,
            }
            all_paths += [[widget, *path] for path in safe.paths]
            all_parts += safe.buffers
        content = {"method": "update_states", "states": shown, "buffer_paths": all_paths}
        return Checked({"comm_id": comm, "data": content}, tuple(around.notes), all_parts)

    def _close(self, comm: str) -> Checked:
        if comm not in self._models and comm not in self._controls:
            return _NOTHING
        self._forget(comm)
        return Checked({"comm_id": comm, "data": {}})

    # --- bookkeeping ----------------------------------------------------------------------------

    def _follow(self, msg_type: str, content: Mapping[str, Any]) -> None:
        """Note what opens or closes unchecked, so that it can be checked later."""
        comm, data = content.get("comm_id"), content.get("data")
        if not isinstance(comm, str):
            return
        if msg_type == "comm_close":
            self._forget(comm)
        elif msg_type == "comm_open" and not self._is_open(comm):
            state = data.get("state") if isinstance(data, dict) else None
            model = find_model(state) if isinstance(state, dict) else None
            widget = content.get("target_name") == _WIDGET and MODEL_ID.fullmatch(comm)
            if widget and model is not None:
                self._models[comm] = model
            elif len(self._others) < _MAX_MODELS:
                self._others.add(comm)

    def _is_open(self, comm: str) -> bool:
        return comm in self._models or comm in self._controls or comm in self._others

    def _forget(self, comm: str) -> None:
        model = self._models.pop(comm, None)
        if model is not None:
            self._closed[comm] = model
            if len(self._closed) > _MAX_CLOSED:
                del self._closed[next(iter(self._closed))]
        self._controls.discard(comm)
        self._others.discard(comm)
        self._captures.pop(comm, None)

    def _note_capture(self, comm: str, values: Mapping[str, Any]) -> None:
        if "msg_id" in values:
            self._captures.pop(comm, None)
            if values["msg_id"]:
                self._captures[comm] = values["msg_id"]


def _update(
    comm: str, method: str, state: dict[str, Any], paths: list[list[str]]
) -> dict[str, Any]:
    return {
        "comm_id": comm,
        "data": {"method": method, "state": state, "buffer_paths": paths},
    }


def _paths(data: Mapping[str, Any]) -> list[Any]:
    paths = data.get("buffer_paths")
    return paths if isinstance(paths, list) else []


def _custom(comm: str, content: Any) -> Checked:
    """The only message of their own that ipywidgets' models hear is to take or lose the focus."""
    wanted = content.get("do") if isinstance(content, dict) else None
    if wanted == "focus":
        return Checked(None, (_NO_FOCUS,))
    if wanted != "blur":
        return _NOTHING
    data = {"method": "custom", "content": {"do": "blur"}}
    return Checked({"comm_id": comm, "data": data})


def _unknown(state: Any) -> str:
    name, module = (
        (state.get("_model_name"), state.get("_model_module"))
        if isinstance(state, dict)
        else ("", "")
    )
    if isinstance(state, dict) and "_esm" in state:
        return note(f"widget {name} of {module}", "it brings its own JavaScript")
    return note(f"widget {name} of {module}", "it is not one of ipywidgets' own")

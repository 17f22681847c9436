"""Outputs as a notebook stores them, which an Output widget carries in its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mxc_kernel.output.figures import Library
from mxc_kernel.output.rich import make_safe
from mxc_kernel.output.terminal import clean

__all__ = ["VIEW", "safe_output"]

VIEW = "application/vnd.jupyter.widget-view+json"


def safe_output(
    item: Any, level: int, shows: Callable[[object], bool], library: Library
) -> tuple[dict[str, Any] | None, tuple[str, ...]]:
    """Return what of a stored output may be shown, or ``None``, and notes on what is left out.

    Args:
        item: an output in nbformat's form, any JSON.
        level: as of :func:`~mxc_kernel.output.rich.make_safe`.
        shows: whether a widget with an id may be shown.
        library: where the libraries come from that draw figures.

    JupyterLab renders what an Output widget holds as trusted, whatever the notebook is.
    """
    kind = item.get("output_type") if isinstance(item, dict) else None
    if kind == "stream":
        name = "stderr" if item.get("name") == "stderr" else "stdout"
        return {"output_type": kind, "name": name, "text": _text(item.get("text"))}, ()
    if kind == "error":
        lines = item.get("traceback")
        return {
            "output_type": kind,
            "ename": _text(item.get("ename")),
            "evalue": _text(item.get("evalue")),
            "traceback": [_text(line) for line in lines] if isinstance(lines, list) else [],
        }, ()
    if kind not in ("display_data", "execute_result") or not isinstance(item.get("data"), dict):
        return None, ()
    data = dict(item["data"])
    view = data.get(VIEW)
    if view is not None and not (isinstance(view, dict) and shows(view.get("model_id"))):
        del data[VIEW]  # said when that widget was refused
    safe = make_safe(data, item.get("metadata"), level, library)
    shown = {"output_type": kind, "data": safe.data, "metadata": safe.metadata}
    if kind == "execute_result":
        count = item.get("execution_count")
        shown["execution_count"] = count if type(count) is int else None
    return shown, safe.notes


def _text(text: Any) -> str:
    if isinstance(text, list):  # nbformat splits text into lists of lines
        text = "".join(line for line in text if isinstance(line, str))
    return clean(text) if isinstance(text, str) else ""

"""What a sandbox may do: access, requests and ceilings as values that can only narrow.

Pure rules. Only `load_ceiling`, `canonical` and `plan_mounts` look at a disk, and importing the
package does not import pydantic.
"""

from typing import Any

from mxc_kernel.policy.access import NATIVE, Access, PathStyle
from mxc_kernel.policy.audit import Audit
from mxc_kernel.policy.ceiling import DEFAULT_LIMITS, Ceiling, Explanation, Layer, Settings
from mxc_kernel.policy.example import example_ceiling
from mxc_kernel.policy.filesystem import Filesystem
from mxc_kernel.policy.load import (
    CEILING_VARIABLE,
    load_ceiling,
    load_layer,
    stamp,
    system_ceiling,
    user_ceiling,
)
from mxc_kernel.policy.model import Exceeded, HtmlLevel, Limits, Network, NetworkMode, Policy
from mxc_kernel.policy.mounts import MountPlan, appeared, plan_mounts
from mxc_kernel.policy.paths import canonical
from mxc_kernel.policy.places import Place, Places
from mxc_kernel.policy.quantities import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from mxc_kernel.policy.redaction import Redaction
from mxc_kernel.policy.request import Request
from mxc_kernel.policy.starting import START_VARIABLE, Ask, LayerText, Start

__all__ = [
    "CEILING_VARIABLE",
    "DEFAULT_LIMITS",
    "NATIVE",
    "START_VARIABLE",
    "Access",
    "Ask",
    "Audit",
    "Ceiling",
    "Exceeded",
    "Explanation",
    "Filesystem",
    "HtmlLevel",
    "Layer",
    "LayerText",
    "Limits",
    "MountPlan",
    "Network",
    "NetworkMode",
    "PathStyle",
    "Place",
    "Places",
    "Policy",
    "Redaction",
    "Request",
    "Settings",
    "Start",
    "appeared",
    "canonical",
    "ceiling_schema",
    "example_ceiling",
    "format_duration",
    "format_size",
    "load_ceiling",
    "load_layer",
    "parse_duration",
    "parse_size",
    "plan_mounts",
    "stamp",
    "system_ceiling",
    "user_ceiling",
]


def ceiling_schema() -> dict[str, Any]:
    """Return the JSON Schema of ceiling files, for editors and `mxc-kernel ceiling schema`."""
    from mxc_kernel.policy.schema import ceiling_schema as generate

    return generate()

"""The rules for one kernel: the built-in ones, the host's secrets and what operators add."""

from __future__ import annotations

from collections.abc import Mapping

from mxc_kernel.output.compiled import Rules
from mxc_kernel.output.patterns import pattern_rule
from mxc_kernel.output.secrets import exact_secrets, host_secrets
from mxc_kernel.policy.redaction import Redaction

__all__ = ["OPERATOR_SECRET", "operators_rules"]

OPERATOR_SECRET = "operator-secret"  # noqa: S105
"""What a masked text is called that a ceiling names."""


def operators_rules(environ: Mapping[str, str], redaction: Redaction) -> Rules:
    """Return what to look for in a kernel's output.

    Args:
        environ: the host's environment, whose secrets are never shown.
        redaction: what the ceiling adds.
    """
    return Rules(
        {**host_secrets(environ), **exact_secrets(OPERATOR_SECRET, sorted(redaction.literals))},
        operator=[pattern_rule(name, pattern) for name, pattern in sorted(redaction.patterns)],
        exceptions=sorted(redaction.exceptions or ()),
    )

"""What the magics do that grant nothing: one function each, from an outcome to the next.

A function changes nothing but the outcome that it returns, so that of several magics in a cell all
count or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mxc_kernel.denials import overview
from mxc_kernel.errors import SandboxPolicyError
from mxc_kernel.hostfiles import exists_unlinked
from mxc_kernel.magics.grants import declare
from mxc_kernel.magics.limits import limits_named
from mxc_kernel.magics.outcome import Action, MagicContext, Outcome
from mxc_kernel.magics.usage import UsageError, count
from mxc_kernel.policy import Access, HtmlLevel, Network, NetworkMode, Policy, canonical
from mxc_kernel.views import (
    ceiling_view,
    policy_view,
    sandbox_view,
    verbatim_view,
)

__all__ = [
    "audit",
    "checkpoint",
    "denials",
    "policy",
    "restore",
    "sandbox",
    "show_ceiling",
]


_AUDITED = 20  # cells that %audit shows if nothing is said


def show_ceiling(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Narrow the ceiling by the options, if any, and show it."""
    request = outcome.request.narrow(_narrowing(given, context))
    view = ceiling_view(context.ceiling, context.ceiling.policy.meet(request.narrowed))
    return replace(outcome, request=request).show(view)


def _narrowing(given: Mapping[str, Any], context: MagicContext) -> Policy:
    """Return the policy that the options of ``%ceiling`` leave: everything, less what they name."""
    policy = Policy.top()
    files = policy.filesystem
    for word in given["readonly"]:
        files = files.limit(canonical(word, base=context.notebook_dir), Access.READONLY)
    for word in given["deny"]:
        files = files.revoke(canonical(word, base=context.notebook_dir))
    network = Network(NetworkMode.CLOSED) if given["network"] else policy.network
    html = HtmlLevel[given["html"].upper()] if given["html"] else policy.html
    limits = replace(policy.limits, **limits_named(given))
    return replace(policy, filesystem=files, network=network, html=html, limits=limits)


def policy(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Show the policy in force, or what it comes to in MXC's words; or declare needs up front."""
    if given["action"] == "request":
        if given["json"]:
            raise UsageError("--json shows what is in force: leave out request")
        return declare(given, outcome, context)
    if given["ro"] or given["rw"]:
        raise UsageError("--ro and --rw go with request")
    effective = context.ceiling.clamp(outcome.request)
    if not given["json"]:
        return outcome.show(policy_view(effective, context.ceiling))
    if context.contract is None:
        raise SandboxPolicyError(
            "the request to the MXC executable is not known here.",
            remedy="Use %policy without --json.",
        )
    return outcome.show(verbatim_view("Request to the MXC executable", context.contract(effective)))


def denials(_given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """List what cells reported as blocked."""
    return outcome.show(
        overview(
            context.denials,
            ceiling=context.ceiling,
            effective=context.ceiling.clamp(outcome.request),
            readonly=context.sandbox_readonly,
            scratch=context.scratch,
            exists=exists_unlinked,
        )
    )


def audit(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Show this session's cells as the audit has them."""
    from mxc_kernel.audit.view import audit_view

    if context.audit is None:
        raise SandboxPolicyError(
            "no audit is kept here.", remedy="Use mxc-kernel audit show in a terminal."
        )
    session, cells = context.audit()
    if given["denials"]:
        cells = [cell for cell in cells if cell.denials or cell.status == "refused"]
    last = count(given["last"]) if given["last"] else _AUDITED
    return outcome.show(audit_view(cells[-last:], session))


def sandbox(given: Mapping[str, Any], outcome: Outcome, context: MagicContext) -> Outcome:
    """Show the facts about the sandbox, or have it replaced by a new one."""
    if given["action"] == "restart":
        strict = outcome.strict or given["strict"]
        return replace(outcome, actions=(*outcome.actions, Action.RESTART), strict=strict)
    if given["strict"]:
        raise UsageError("--strict goes with restart")
    if context.sandbox is None:
        raise SandboxPolicyError(
            "nothing is known about the sandbox here.", remedy="Use %policy for what is in force."
        )
    changed = bool(outcome.actions) or outcome.request != context.request
    return outcome.show(sandbox_view(context.sandbox(), changed=changed))


def checkpoint(_given: Mapping[str, Any], outcome: Outcome, _context: MagicContext) -> Outcome:
    """Have a snapshot of the session's names taken."""
    return replace(outcome, actions=(*outcome.actions, Action.CHECKPOINT))


def restore(_given: Mapping[str, Any], outcome: Outcome, _context: MagicContext) -> Outcome:
    """Have the names of the last snapshot brought back."""
    return replace(outcome, actions=(*outcome.actions, Action.RESTORE))

"""Approvals of a call of a refund tool."""

from typing import Any

from handrail.review.approvals.model import DECISION_PERIOD, Approval, digest
from handrail.testing import VirtualClock

NOW = VirtualClock().now()
ROLES = {"lead": ("ann", "bob"), "empty": ()}
ARGUMENTS = {"order": 1042, "reason": "charged twice"}
SCHEMA_HASH = "5c" * 32
DIGEST = digest("refund", ARGUMENTS, SCHEMA_HASH)


def approval(approval_id: str = "apr_1", **overrides: Any) -> Approval:
    fields: dict[str, Any] = {
        "run_id": "run_1",
        "round": 1,
        "tenant": "acme",
        "user": "u-17",
        "agent": "support",
        "tool": "refund",
        "call_id": f"call_{approval_id}",
        "arguments": ARGUMENTS,
        "schema_hash": SCHEMA_HASH,
        "digest": DIGEST,
        "approver": "role:lead",
        "idempotent": False,
        "state": "pending",
        "proposed_at": NOW,
        "expires_at": NOW + DECISION_PERIOD,
    }
    return Approval(approval_id=approval_id, **{**fields, **overrides})

"""Approvals: proposed irreversible actions, who may decide on them, and their execution at most once."""

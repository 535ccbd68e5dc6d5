"""The reference agents, a folder each; they use Handrail's public names only, as any user's code does."""

AGENTS = {
    "support-triage": "handrail.examples.support_triage:agent",
    "slow-crm": "handrail.examples.slow_crm:agent",
    "fast-crm": "handrail.examples.slow_crm:fast",
}
"""The reference agents' names, and where they are."""

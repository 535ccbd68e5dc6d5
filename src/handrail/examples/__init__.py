"""The reference agents, one package each. They import Handrail's public names only, as users' code does."""

AGENTS = {
    "support-triage": "handrail.examples.support_triage:agent",
    "slow-crm": "handrail.examples.slow_crm:agent",
    "fast-crm": "handrail.examples.slow_crm:fast",
}
"""Where the reference agents are, by name."""

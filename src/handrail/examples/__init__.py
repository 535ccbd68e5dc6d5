"""The reference agents, a folder each; they use Handrail's public names only, as any user's code does."""

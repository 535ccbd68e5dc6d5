"""`handrail traces`: what happened, how long it took and what it cost."""

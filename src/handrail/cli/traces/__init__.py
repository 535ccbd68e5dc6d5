"""`handrail traces`: what runs did, how long it took, and what it cost."""

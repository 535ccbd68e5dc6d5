"""Whether a change passes: the rule, how many trials it needs, and its verdicts."""

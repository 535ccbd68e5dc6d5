"""`handrail eval`: the eval set, eval runs, baselines and the gate."""

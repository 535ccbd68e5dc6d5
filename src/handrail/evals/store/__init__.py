"""The evals' tables: eval runs, trials, baselines, gate verdicts and labels."""

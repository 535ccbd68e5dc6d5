"""The runs' tables: runs, outcomes, messages and what resumes a paused run."""

"""People at the right points: approvals before irreversible actions, and feedback on runs."""

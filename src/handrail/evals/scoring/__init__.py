"""What a trial is worth: scorers, judges, and the hash that says by what it was scored."""

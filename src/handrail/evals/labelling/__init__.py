"""What people say of trials, and whether a judge may be trusted by it."""

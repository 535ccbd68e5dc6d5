"""What a trace tells: its tree, critical path, what could run side by side, what led nowhere."""

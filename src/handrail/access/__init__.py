"""Who may use the server: dashboard users with passwords and sessions, programs with API keys."""

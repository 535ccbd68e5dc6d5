"""The settings, their sources and the messages for invalid ones."""

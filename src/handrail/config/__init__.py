"""Settings: what they are, where they come from, and the errors that explain what is wrong with them."""

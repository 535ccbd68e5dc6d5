"""The edge to language models: selection, construction and prices."""

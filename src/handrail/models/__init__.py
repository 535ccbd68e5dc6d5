"""Language models: selection, construction and prices."""

"""The eval set: frozen cases as people write them, their lock file, lint, and other tools' formats."""

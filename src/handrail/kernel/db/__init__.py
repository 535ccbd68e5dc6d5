"""The database: engines, the writer that commits, column types, jobs and migrations."""

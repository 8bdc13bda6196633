"""Names, relations and desired state in SQLite: one writer thread, numbered migrations."""

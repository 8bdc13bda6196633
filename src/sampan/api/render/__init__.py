"""The engine's values in the shapes of Docker's JSON: one module per subject, no I/O.

Shapes follow the newest API version; what older clients expect on top is added by version, and where a
version dropped a field the comment names it.
"""

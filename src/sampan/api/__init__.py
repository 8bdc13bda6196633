"""The Docker Engine API over HTTP: decoded on entry, rendered on exit."""

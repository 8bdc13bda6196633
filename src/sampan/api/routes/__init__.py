"""One module per resource of the Engine API."""

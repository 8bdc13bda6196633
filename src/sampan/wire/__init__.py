"""Protocol parsers and writers that take bytes and return values; none of them does I/O."""

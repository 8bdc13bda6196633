"""Registry client."""

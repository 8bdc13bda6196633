"""Processes that extend the engine by Docker's plugin protocol: where they are, and how they are asked."""

"""Synchronous Engine API client; imports nothing of the engine."""

"""Stand-ins that behave like the real thing, in memory."""

"""The daemon: the one place where objects are built and wired."""

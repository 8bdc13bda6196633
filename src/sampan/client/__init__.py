"""A synchronous Engine API client for short-lived programs.

Law: the hot path (one ``sampan run``) imports nothing but C extension modules and this package, because
every stdlib module between the process and its first system call is time that a user waits for.
"""

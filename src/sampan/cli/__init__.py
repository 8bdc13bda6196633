"""The command line.

Theory: a command is data (``command.Command``: its words, usage, flags) from which parsing, ``--help``,
errors and completion come, plus one function that acts through ``sampan.client``. Law: starting a command
imports only what that command needs; ``dataclasses``, ``enum``, ``re``, ``typing``, ``argparse`` and ``json``
stay out of ``run``, ``exec`` and ``ps``, since each costs a good part of an interpreter start.
"""

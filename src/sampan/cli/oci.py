"""``oci``: ours as an OCI runtime. The rest of the line is the runtime's own, which is runc's."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import Context


def _oci(_context: Context, _options: Options, arguments: list[str]) -> int:
    from sampan.oci.entry import run_and_exit

    run_and_exit(["oci", *arguments])
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "oci",
        "[OPTIONS] COMMAND [ARG...]",
        "Run containers as an OCI runtime",
        _oci,
        interspersed=False,
        raw=True,
    ),
)

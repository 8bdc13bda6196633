"""``system dial-stdio``: standard input and output become a connection to the engine, for SSH."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import Context


def _dial(context: Context, _options: Options, _arguments: list[str]) -> int:
    from sampan.cli.session import Output, Session, Signals

    session = Session(context.client.dial(), b"", Output(multiplexed=False), stdin=True)
    try:
        with Signals(frozenset()) as none:
            session.run(none)
    finally:
        session.close()
    return 0


COMMANDS: tuple[Command, ...] = (
    Command("system dial-stdio", "", "Carry standard input and output to the engine and back", _dial, most=0),
)

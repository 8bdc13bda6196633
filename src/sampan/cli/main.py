"""Entry: global flags, then the command, then its flags; and failures to exit codes."""

from __future__ import annotations

import os
import sys

from sampan.cli.command import Command, Exit, UsageError
from sampan.cli.context import PROGRAM, Context, Where, err, out
from sampan.cli.index import GROUPS, module_of
from sampan.cli.parse import FlagError, HelpRequested, parse
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.command import Flag, Options

GLOBAL_FLAGS: tuple[Flag, ...] = (
    ("", "config", "string", "Folder of client configuration files"),
    ("c", "context", "string", "Context that names the daemon to connect to (before the variables)"),
    ("D", "debug", "bool", "Enable debug mode"),
    ("H", "host", "list", "Daemon socket to connect to"),
    ("l", "log-level", "string", 'Logging level ("debug", "info", "warn", "error", "fatal")', "info"),
    ("", "tls", "bool", "Use TLS; implied by --tlsverify"),
    ("", "tlscacert", "string", "Trust only certificates signed by this authority"),
    ("", "tlscert", "string", "Path of the client's TLS certificate"),
    ("", "tlskey", "string", "Path of the client's TLS key"),
    ("", "tlsverify", "bool", "Use TLS and verify the remote"),
    ("v", "version", "bool", "Print version information and quit"),
)

FLAG_ERROR = 125  # Docker's exit code for a flag that a command does not take
PREFERENCES = frozenset(
    ("detachKeys", "imagesFormat", "networksFormat", "psFormat", "statsFormat", "volumesFormat")
)
"""Keys of the configuration file that stand in for flags (``preferences.py``)."""
LEVELS = ("panic", "fatal", "error", "warn", "warning", "info", "debug", "trace")


def load(module: str, spelled: str) -> Command:
    """The command that ``spelled`` names, from its group's module."""
    found = __import__(f"sampan.cli.{module}", fromlist=("COMMANDS",))
    commands: tuple[Command, ...] = found.COMMANDS
    for command in commands:
        if spelled == command.words or spelled in command.aliases:
            return command
    raise LookupError(spelled)


def main(argv: list[str]) -> int:
    """Run the command line; returns the exit code."""
    try:
        return _main(argv)
    except Exit as end:
        if end.message:
            err(end.message)
        return end.code
    except UsageError as error:
        err(str(error) + (f"\n\n{error.hint}" if error.hint else ""))
        return error.code
    except Failure as error:
        err(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 1


def run_and_exit(argv: list[str]) -> None:
    """``main``, then leave without the interpreter's tear-down, which a short command would wait for."""
    code = main(argv)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _main(argv: list[str]) -> int:
    where, words = None, argv
    if argv[:1] and argv[0][:1] == "-":
        options, words = _globals(argv)
        if options["log-level"].lower() not in LEVELS:
            raise Failure(f"Unable to parse logging level: {options['log-level']}")
        if options["config"]:
            os.environ["DOCKER_CONFIG"] = options["config"]  # for whatever this process starts, too
        if options["version"] and not words:
            from sampan import __version__

            out(f"Sampan version {__version__}")
            return 0
        where = Where(options)
    if not words:
        from sampan.cli.usage import program_help

        out(program_help(GLOBAL_FLAGS))
        return 0
    return _dispatch(where or Where(), words)


def _globals(argv: list[str]) -> tuple[Options, list[str]]:
    try:
        return parse(GLOBAL_FLAGS, argv, interspersed=False)
    except HelpRequested as asked:
        from sampan.cli.usage import program_help

        if asked.deprecated:
            err("Flag shorthand -h has been deprecated, use --help")
        out(program_help(GLOBAL_FLAGS))
        raise Exit(0) from None
    except FlagError as error:
        hint = f"Usage:  {PROGRAM} [OPTIONS] COMMAND [ARG...]\n\nRun '{PROGRAM} --help' for more information"
        raise UsageError(str(error), hint=hint, code=FLAG_ERROR) from None


def _dispatch(where: Where, words: list[str]) -> int:
    name, rest = words[0], words[1:]
    if name == "help":
        from sampan.cli.usage import help_topic

        out(help_topic(rest))
        return 0
    if name not in GROUPS:
        spelled, path = name, [name]
    elif not rest or rest[0] == "--help":
        from sampan.cli.usage import group_help

        out(group_help(name))
        return 0
    else:
        spelled, path = f"{name} {rest[0]}", [name, rest[0]]
        rest = rest[1:]
    module = module_of(path)
    if module is None:
        from sampan.cli.elsewhere import answer

        return answer(where, path, rest)
    command = load(module, spelled)
    if command.raw:  # the rest of the line is not ours to read
        return command.action(Context(where, command, spelled), parse((), [])[0], rest)
    return _act(Context(where, command, spelled), rest)


def _act(context: Context, words: list[str]) -> int:
    command, spelled = context.command, context.spelled
    try:
        options, arguments = parse(command.flags, words, interspersed=command.interspersed)
    except HelpRequested as asked:
        from sampan.cli.usage import help_of

        if asked.deprecated:
            err("Flag shorthand -h has been deprecated, use --help")
        out(help_of(command, spelled))
        return 0
    except FlagError as error:
        from sampan.cli.usage import hint

        raise UsageError(str(error), hint=hint(command, spelled), code=FLAG_ERROR) from None
    most = command.most
    if len(arguments) < command.least or (most is not None and len(arguments) > most):
        from sampan.cli.usage import argument_error

        raise UsageError(argument_error(command, spelled))
    given = options.given
    if (
        not PREFERENCES.isdisjoint(context.settings)
        or "disable-content-trust" in given
        or "DOCKER_DEFAULT_PLATFORM" in os.environ
    ):
        from sampan.cli.preferences import apply

        apply(command, options, context.settings)
    return command.action(context, options, arguments)

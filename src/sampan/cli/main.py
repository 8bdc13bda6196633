"""Entry: global flags, then the command, then its flags; and failures to exit codes."""

from __future__ import annotations

import os
import sys

from sampan.cli.command import Command, Exit, UsageError
from sampan.cli.context import PROGRAM, Context, err, out
from sampan.cli.index import GROUPS, UNOFFERED, module_of
from sampan.cli.parse import FlagError, HelpRequested, parse
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.command import Flag, Options

GLOBAL_FLAGS: tuple[Flag, ...] = (
    ("", "config", "string", "Folder of client configuration files"),
    ("c", "context", "string", "Context that names the daemon to connect to"),
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
    hosts: list[str] = []
    words = argv
    if argv[:1] and argv[0][:1] == "-":
        options, words = _globals(argv)
        if options["version"]:
            from sampan import __version__

            out(f"Sampan version {__version__}")
            return 0
        hosts = options["host"]
        if options["tls"] or options["tlsverify"]:
            raise Failure("TLS connections are not offered yet")
        if options["context"] not in ("", "default"):
            raise Failure(f"Failed to initialize: context {options['context']} is not offered yet; use -H")
    if not words:
        from sampan.cli.usage import program_help

        out(program_help(GLOBAL_FLAGS))
        return 0
    return _dispatch(hosts, words)


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


def _dispatch(hosts: list[str], words: list[str]) -> int:
    name, rest = words[0], words[1:]
    if name == "help":
        return _help(rest)
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
        _unknown(path)
        return 1
    command = load(module, spelled)
    if name == "daemon":  # its flags are the engine's own
        return command.action(Context(hosts, command, spelled), parse((), [])[0], rest)
    return _act(Context(hosts, command, spelled), rest)


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
    return command.action(context, options, arguments)


def _unknown(path: list[str]) -> None:
    group = path[0] if len(path) > 1 else ""
    spelled = " ".join(path)
    if group and path[1][:1] == "-":
        letter = path[1][1:2]
        what = (
            f"unknown flag: {path[1]}"
            if letter == "-"
            else f"unknown shorthand flag: '{letter}' in {path[1]}"
        )
        hint = f"Usage:  {PROGRAM} {group}\n\nRun '{PROGRAM} {group} --help' for more information"
        raise UsageError(what, hint=hint, code=FLAG_ERROR)
    if path[-1] in UNOFFERED.get(group, ()):
        raise UsageError(f"{PROGRAM}: '{PROGRAM} {spelled}' is not offered yet")
    usage = f"Usage:  {PROGRAM} {group}\n\n" if group else ""
    where = f"{PROGRAM} {group}" if group else PROGRAM
    hint = f"{usage}Run '{where} --help' for more information"
    raise UsageError(f"{PROGRAM}: unknown command: {PROGRAM} {spelled}", hint=hint)


def _help(words: list[str]) -> int:
    from sampan.cli.usage import group_help, help_of, program_help

    if not words:
        out(program_help(GLOBAL_FLAGS))
        return 0
    if words[0] in GROUPS and len(words) == 1:
        out(group_help(words[0]))
        return 0
    path = words[:2] if words[0] in GROUPS else words[:1]
    module = module_of(path)
    if module is None:
        raise UsageError(f"unknown help topic: {' '.join(path)}")
    out(help_of(load(module, " ".join(path)), " ".join(path)))
    return 0

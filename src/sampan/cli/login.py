"""``login`` and ``logout``: the engine checks the credentials, the client keeps them."""

from __future__ import annotations

import os
import sys

from sampan.cli import credentials
from sampan.cli.command import Command, Options
from sampan.cli.context import Context, err, folder, out, write
from sampan.errors import Failure

_NO_TERMINAL = "Error: Cannot perform an interactive login from a non TTY device"


def _server(arguments: list[str]) -> str:
    given = arguments[0] if arguments else ""
    if not given or given in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        return credentials.HUB
    if given == credentials.HUB:
        return given
    for scheme in ("https://", "http://"):
        given = given.removeprefix(scheme)
    return given.partition("/")[0]


def _secret(options: Options) -> str:
    """The password that flags or standard input give; "" if it must be asked for."""
    if options["password"]:
        err("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if options["password-stdin"]:
            raise Failure("conflicting options: cannot specify both --password and --password-stdin")
    if not options["password-stdin"]:
        return str(options["password"])
    if not options["username"]:
        raise Failure("the --password-stdin option requires --username to be set")
    return sys.stdin.read().rstrip("\r\n")


def _ask(user: str) -> tuple[str, str]:
    """User name and password from the terminal."""
    if not os.isatty(0):
        raise Failure(_NO_TERMINAL)
    import getpass

    if not user:
        write(1, "Username: ")
        user = sys.stdin.readline().strip()
        if not user:
            raise Failure("Error: Non-null Username Required")
    secret = getpass.getpass("Password: ")
    if not secret:
        raise Failure("Error: Password Required")
    return user, secret


def _login(context: Context, options: Options, arguments: list[str]) -> int:
    server = _server(arguments)
    secret = _secret(options)
    user = options["username"]
    sent: dict[str, str] = {}
    if not user and not secret:
        sent = credentials.lookup(context.settings, server)
        if sent:
            out(f"Authenticating with existing credentials... [Username: {sent.get('username', '')}]")
    if not sent:
        if not secret or not user:
            user, secret = _ask(user)
        sent = {"username": user, "password": secret, "serveraddress": server}
    answer = context.client.call("POST", "/auth", None, sent) or {}
    token = answer.get("IdentityToken") or ""
    if secret or token:
        kept = credentials.store(
            context.settings, server, sent.get("username", ""), token or secret, token=bool(token)
        )
        if not kept:
            path = os.path.join(folder(), "config.json")
            err(
                f"WARNING! The password is stored unencrypted in {path}; a credential helper would not do so."
            )
    if answer.get("Status"):
        out(answer["Status"])
    return 0


def _logout(context: Context, _options: Options, arguments: list[str]) -> int:
    server = _server(arguments)
    out(f"Removing login credentials for {server}")
    try:
        credentials.erase(context.settings, server)
    except Failure as error:
        err(f"WARNING: could not erase credentials:\n{server}: {error}")
    return 0


COMMANDS: tuple[Command, ...] = (
    Command(
        "login",
        "[OPTIONS] [SERVER]",
        "Authenticate to a registry",
        _login,
        flags=(
            ("p", "password", "string", "Password or Personal Access Token (PAT)"),
            ("", "password-stdin", "bool", "Read the password from standard input"),
            ("u", "username", "string", "Username"),
        ),
        most=1,
    ),
    Command("logout", "[SERVER]", "Log out from a registry", _logout, most=1),
)

"""``registry serve``: the local images, offered as a registry; this engine's own command."""

from __future__ import annotations

from sampan.cli.command import Command, Options
from sampan.cli.context import Context, err, out
from sampan.client.api import json_stream
from sampan.errors import InvalidArgument

_ADDRESS = "127.0.0.1:5000"


def _text_of(path: str) -> str:
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"cannot read {path}: {getattr(error, 'strerror', '') or 'no PEM'}") from None


def _serve(context: Context, options: Options, _arguments: list[str]) -> int:
    body = {
        "Address": options["listen"] or _ADDRESS,
        "Certificate": _text_of(options["tls-cert"]),
        "Key": _text_of(options["tls-key"]),
        "Token": options["token"],
    }
    answer = context.client.open("POST", "/registry/serve", body=body)
    for told in json_stream(answer):
        secure = bool(told["Certificate"])
        count = told["Repositories"]
        where = f"{'https' if secure else 'http'}://{told['Address']}"
        out(f"Serving {count} repositor{'y' if count == 1 else 'ies'} on {where}")
        if told["Token"]:
            out(f"Token: {told['Token']} (log in with any user name and the token as the password)")
        if secure and not options["tls-cert"]:
            out("Its certificate, for certs.d of whoever pulls:")
            out(told["Certificate"].rstrip())
    err("the engine has stopped serving")
    return 1


COMMANDS: tuple[Command, ...] = (
    Command(
        "registry serve",
        "[OPTIONS]",
        "Offer the local images to other machines, read-only, until interrupted",
        _serve,
        flags=(
            ("", "listen", "string", f"Address to listen on (HOST:PORT; {_ADDRESS} if not given)"),
            ("", "tls-cert", "string", "Certificate to show (PEM), with all that sign it"),
            ("", "tls-key", "string", "Its key (PEM)"),
            ("", "token", "string", "What clients must know; off the loopback one is made if none is given"),
        ),
        most=0,
    ),
)

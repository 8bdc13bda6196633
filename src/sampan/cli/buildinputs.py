"""What the command line gives a build beside its context: secrets, ssh agents, contexts by name.

The fields and the words of refusals are buildx's.
"""

from __future__ import annotations

import os

from sampan.errors import Failure
from sampan.wire.sessions import SECRET_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PIECE = 1 << 16


def fields(text: str, names: tuple[str, ...]) -> dict[str, str]:
    """``key=value,…`` as pairs whose keys are among ``names``."""
    found: dict[str, str] = {}
    for part in _separated(text):
        name, sign, value = part.partition("=")
        if not sign:
            raise Failure(f"invalid field '{part}' must be a key=value pair")
        name = name.strip().lower()
        if name not in names:
            raise Failure(f"unexpected key '{name}' in '{part}'")
        found[name] = value
    return found


def _separated(text: str) -> list[str]:
    """The fields of a line of comma-separated values; one in quotes may hold commas."""
    if '"' not in text:
        return text.split(",")
    import csv

    return next(csv.reader([text]), [])


# ------------------------------------------------------------------ secrets


def secrets(given: Iterable[str]) -> dict[str, Callable[[], bytes]]:
    """What reads each secret, by its id."""
    found: dict[str, Callable[[], bytes]] = {}
    for text in given:
        pairs = fields(text, ("type", "id", "source", "src", "env"))
        kind, identity = pairs.get("type", ""), pairs.get("id", "")
        path, variable = pairs.get("source") or pairs.get("src") or "", pairs.get("env", "")
        if kind not in ("", "file", "env"):
            raise Failure(f'unsupported secret type "{kind}"')
        if not identity:
            raise Failure("secret missing ID")
        if kind == "env" and not variable:
            path, variable = "", path
        if not path and not variable:
            path, variable = ("", identity) if identity in os.environ else (identity, "")
        found[identity] = _variable(variable) if variable else _file(identity, path)
    return found


def _variable(name: str) -> Callable[[], bytes]:
    return lambda: os.fsencode(os.environ.get(name, ""))


def _file(identity: str, path: str) -> Callable[[], bytes]:
    try:
        size = os.stat(path).st_size
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise Failure(f"failed to stat {path}: stat {path}: {why}") from None
    if size > SECRET_LIMIT:
        raise Failure(f"secret {identity} too big. max size 500KB")

    def read() -> bytes:
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.read(SECRET_LIMIT + 1) or b""
        except OSError as error:
            raise Failure(f"open {path}: {os.strerror(error.errno or 0).lower()}") from None
        if len(data) > SECRET_LIMIT:
            raise Failure(f"secret {identity} too big. max size 500KB")
        return data

    return read


# ------------------------------------------------------------------ agents


def agents(given: Iterable[str]) -> dict[str, str]:
    """The socket of each agent, by its id."""
    import stat

    found: dict[str, str] = {}
    for text in given:
        identity, _, paths = text.partition("=")
        first, comma, _ = paths.partition(",")
        path = first or os.environ.get("SSH_AUTH_SOCK", "")
        if not path:
            raise Failure("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            raise Failure(f"stat {path}: {os.strerror(error.errno or 0).lower()}") from None
        if comma or not stat.S_ISSOCK(mode):
            raise Failure(
                f"--ssh {text}: keys are not read by this client: give them to an agent (ssh-add {path}) and "
                "forward that"
            )
        found[identity or "default"] = path
    return found


# ------------------------------------------------------------------ contexts by name


def contexts(given: Iterable[str]) -> dict[str, str]:
    """What ``--build-context`` names: a folder, or a source with its scheme."""
    found: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign:
            raise Failure(f"invalid context value: {text}, expected key=value")
        found[name.lower()] = value
    return found

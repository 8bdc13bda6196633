"""Passwords of registries: in ``config.json`` or with one of Docker's credential helpers.

A helper is a program ``docker-credential-NAME``: ``get`` and ``erase`` read the server from their input,
``store`` a JSON document; ``get`` prints one. The user name "<token>" marks an identity token.
"""

from __future__ import annotations

from sampan.cli.references import split
from sampan.errors import Failure
from sampan.wire import document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Settings = dict[str, Any]

HUB = "https://index.docker.io/v1/"
TOKEN = "<token>"
NONE = "credentials not found in native keychain"


def server_of(image: str) -> str:
    """Under which name the credentials for the registry of ``image`` are kept."""
    first, slash, _ = split(image)[0].partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return HUB
    return HUB if first in ("docker.io", "index.docker.io") else first


def helper_of(settings: Settings, server: str) -> str:
    """The name of the helper that keeps the credentials of ``server``; "" for the file."""
    return str((settings.get("credHelpers") or {}).get(server) or settings.get("credsStore") or "")


def ask(helper: str, verb: str, text: str) -> str:
    """What the helper prints. Raises Failure with what it says."""
    import subprocess

    name = f"docker-credential-{helper}"
    try:
        done = subprocess.run([name, verb], input=text, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Failure(
            f'error getting credentials - err: exec: "{name}": {(error.strerror or "").lower()}, out: ``'
        ) from error
    if done.returncode:
        said = (done.stdout or done.stderr).strip()
        if said == NONE:
            return ""
        raise Failure(f"error getting credentials - err: exit status {done.returncode}, out: `{said}`")
    return done.stdout


def lookup(settings: Settings, server: str) -> dict[str, str]:
    """The credentials for ``server`` as the API's AuthConfig; empty if there are none. Raises Failure."""
    helper = helper_of(settings, server)
    if helper:
        text = ask(helper, "get", server)
        try:
            found = document.decode(text) if text.strip() else {}
        except ValueError as error:
            raise Failure(f"docker-credential-{helper}: {error}") from error
        user, secret = found.get("Username", ""), found.get("Secret", "")
        if not found:
            return {}
        return _token(server, secret) if user == TOKEN else _password(server, user, secret)
    kept = (settings.get("auths") or {}).get(server) or {}
    if kept.get("identitytoken"):
        return _token(server, kept["identitytoken"])
    if not kept.get("auth"):
        return {}
    from binascii import a2b_base64

    try:
        user, sign, secret = a2b_base64(kept["auth"]).decode().partition(":")
    except ValueError as error:
        raise Failure(f"the credentials for {server} in config.json cannot be read: {error}") from error
    if not sign:
        raise Failure("invalid auth configuration file")
    return _password(server, user, secret.rstrip("\0"))


def _password(server: str, user: str, secret: str) -> dict[str, str]:
    return {"username": user, "password": secret, "serveraddress": server}


def _token(server: str, token: str) -> dict[str, str]:
    return {"identitytoken": token, "serveraddress": server}


def header(settings: Settings, image: str) -> dict[str, str]:
    """The request header with the credentials for the registry of ``image``, empty ones included."""
    from binascii import b2a_base64

    text = document.encode(lookup(settings, server_of(image)))
    encoded = b2a_base64(text.encode(), newline=False).decode().replace("+", "-").replace("/", "_")
    return {"X-Registry-Auth": encoded}


def all_headers(settings: Settings) -> dict[str, str]:
    """The request header with the credentials for every registry that the settings name."""
    from binascii import b2a_base64

    servers = dict.fromkeys((*(settings.get("auths") or {}), *(settings.get("credHelpers") or {})))
    found = {server: who for server in servers if (who := lookup(settings, server))}
    encoded = b2a_base64(document.encode(found).encode(), newline=False).decode()
    return {"X-Registry-Config": encoded.replace("+", "-").replace("/", "_")}


def store(settings: Settings, server: str, user: str, secret: str, *, token: bool) -> bool:
    """Keep credentials; whether a helper keeps them (and the file does not). Raises Failure."""
    from sampan.cli.settings import change

    helper = helper_of(settings, server)
    if helper:
        kept = {"ServerURL": server, "Username": TOKEN if token else user, "Secret": secret}
        ask(helper, "store", document.encode(kept))
        change(lambda found: found["auths"].__setitem__(server, {}))
        return True
    from binascii import b2a_base64

    entry = {"auth": b2a_base64(f"{user}:{'' if token else secret}".encode(), newline=False).decode()}
    if token:
        entry["identitytoken"] = secret
    change(lambda found: found["auths"].__setitem__(server, entry))
    return False


def erase(settings: Settings, server: str) -> None:
    """Forget the credentials for ``server``. Succeeds if there are none. Raises Failure."""
    from sampan.cli.settings import change

    helper = helper_of(settings, server)
    if helper:
        ask(helper, "erase", server)
    if server in (settings.get("auths") or {}):
        change(lambda found: found["auths"].pop(server, None))

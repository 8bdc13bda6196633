"""Where plugins are, by name, in this order (`docs.docker.com/engine/extend/plugin_api`):

/run/docker/plugins/NAME.sock, /run/docker/plugins/NAME/NAME.sock
/etc/docker/plugins and /usr/lib/docker/plugins: NAME.spec (an address) or NAME.json ({"Addr": …}), there
or in a directory NAME
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sampan.errors import Internal
from sampan.spec import foreign
from sampan.wire.trust import trusting

if TYPE_CHECKING:
    import ssl

SOCKETS = "/run/docker/plugins"
SPECS = ("/etc/docker/plugins", "/usr/lib/docker/plugins")
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:/-]*")
_SPEC = 1 << 16  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """``path`` of a socket, or a host and port, perhaps with TLS."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: ssl.SSLContext | None = None


class Places:
    """The plugins of this host. ``sockets`` and ``specs`` are directories."""

    def __init__(self, *, sockets: str = SOCKETS, specs: Sequence[str] = SPECS) -> None:
        self._sockets = sockets
        self._specs = specs

    def names(self) -> list[str]:
        """Of every plugin that can be found now, volume driver or not."""
        found = {name for entry in _entries(self._sockets) if (name := _socket_name(self._sockets, entry))}
        for directory in self._specs:
            for entry in _entries(directory):
                stem, dot, kind = entry.rpartition(".")
                if dot and kind in ("spec", "json"):
                    found.add(stem)
                elif any(os.path.isfile(f"{directory}/{entry}/{entry}.{kind}") for kind in ("spec", "json")):
                    found.add(entry)
        return sorted(name for name in found if _NAME.fullmatch(name))

    def find(self, name: str) -> Address | None:
        """Where the plugin is; None if it is nowhere. Internal for a description that is none."""
        if not _NAME.fullmatch(name) or ".." in name.split("/"):
            return None
        for path in (f"{self._sockets}/{name}.sock", f"{self._sockets}/{name}/{name}.sock"):
            if _is_socket(path):
                return Address(path=path)
        for directory in self._specs:
            for stem in (f"{directory}/{name}", f"{directory}/{name}/{name}"):
                for path, reader in ((f"{stem}.spec", _from_spec), (f"{stem}.json", _from_json)):
                    if os.path.isfile(path):
                        return reader(path)
        return None


def _entries(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _socket_name(directory: str, entry: str) -> str:
    if entry.endswith(".sock") and _is_socket(f"{directory}/{entry}"):
        return entry.removesuffix(".sock")
    return entry if _is_socket(f"{directory}/{entry}/{entry}.sock") else ""


def _is_socket(path: str) -> bool:
    with suppress(OSError):
        return os.stat(path).st_mode & 0o170000 == 0o140000
    return False


def _from_spec(path: str) -> Address:
    with open(path, errors="replace") as file:
        return parse_address(file.read(_SPEC).strip(), path)


def _from_json(path: str) -> Address:
    try:
        with open(path) as file:
            document = foreign.decode(file.read(_SPEC))
        address = parse_address(str(document["Addr"]), path)
        asked = document.get("TLSConfig")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Internal(f"{path}: not a description of a plugin") from error
    if not address.host or not isinstance(asked, dict):
        return address
    try:
        return Address(host=address.host, port=address.port, tls=_tls(asked))
    except OSError as error:
        raise Internal(f"{path}: TLS: {error.strerror or error}") from error


def _tls(asked: dict[str, Any]) -> ssl.SSLContext:
    import ssl

    context = trusting(_said(asked, "CAFile"))
    if asked.get("InsecureSkipVerify") is True:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := _said(asked, "CertFile"):
        context.load_cert_chain(certificate, _said(asked, "KeyFile") or None)
    return context


def parse_address(text: str, where: str) -> Address:
    """``unix:///path`` or ``tcp://host:port``. Internal for anything else."""
    try:
        url = urlsplit(text)
        if url.scheme == "unix" and url.path:
            return Address(path=url.path)
        if url.scheme in ("tcp", "http") and url.hostname and url.port:
            return Address(host=url.hostname, port=url.port)
        if url.scheme == "https" and url.hostname and url.port:
            return Address(host=url.hostname, port=url.port, tls=trusting())
    except ValueError as error:
        raise Internal(f"{where}: {text!r} is no address of a plugin") from error
    raise Internal(f"{where}: {text!r} is no address of a plugin")


def _said(document: dict[str, Any], key: str) -> str:
    found = document.get(key)
    return found if isinstance(found, str) else ""

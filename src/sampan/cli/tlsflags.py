"""The TLS flags and variables of Docker's client as what the client needs. Loaded for a TCP address only."""

from __future__ import annotations

import os

from sampan.cli.context import folder
from sampan.client.tls import Material
from sampan.errors import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.command import Options

_FILES = (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem"))


def material(options: Options | None) -> Material | None:
    """What TLS is spoken with; None for a plain connection.

    ``--tlsverify`` and DOCKER_TLS_VERIFY verify the peer, ``--tls`` and DOCKER_TLS do not. Files are those of
    the flags, else of DOCKER_CERT_PATH or the configuration folder; of these, a pair that is absent is left
    out.
    """
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    wanted = bool(os.environ.get("DOCKER_TLS"))
    if options is not None:
        verify = options["tlsverify"] if "tlsverify" in options.given else verify
        wanted = options["tls"] or wanted or any(name in options.given for name, _ in _FILES)
    if not verify and not wanted:
        return None
    place = os.environ.get("DOCKER_CERT_PATH") or folder()
    paths = {}
    for name, file in _FILES:
        given = options[name] if options is not None else ""
        path = given or os.path.join(place, file)
        if not given and name != "tlscacert" and not os.path.exists(path):
            path = ""
        elif not os.access(path, os.R_OK):
            missing = f"open {path}: no such file or directory"
            raise Failure(f"Failed to initialize: unable to resolve docker endpoint: {missing}")
        paths[name] = path
    return Material(
        authority=paths["tlscacert"], certificate=paths["tlscert"], key=paths["tlskey"], verify=verify
    )

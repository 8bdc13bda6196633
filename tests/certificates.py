"""Certificates for tests: an authority, and what it signs. Made by openssl, which every Debian has."""

from __future__ import annotations

import subprocess
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Its files are in ``place``: ``ca.pem``; ``NAME.pem`` and ``NAME-key.pem`` of each that it signed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        self._run(
            "req",
            "-x509",
            *_KEY,
            "-keyout",
            "ca-key.pem",
            "-out",
            "ca.pem",
            "-subj",
            "/CN=test",
            "-days",
            "2",
        )

    def sign(self, name: str) -> None:
        """Make a key and a certificate for ``name``, good for servers on 127.0.0.1 and for clients."""
        self._run("req", *_KEY, "-keyout", f"{name}-key.pem", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (self.place / "extension").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
        self._run(
            *(
                "x509",
                "-req",
                "-in",
                f"{name}.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca-key.pem",
                "-CAcreateserial",
            ),
            *("-out", f"{name}.pem", "-days", "2", "-extfile", "extension"),
        )

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.place, check=True, capture_output=True)

"""An engine that drops the archives of layers: what it pushes is what was loaded, with other digests."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests import archives
from tests.e2e import registries, serving

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("docker-registry"), reason="needs docker-registry"),
]

LAYER = archives.layer(**{"some/file": os.urandom(200_000)})


def test_a_dropped_archive_is_pushed_pulled_and_saved(tmp_path: Path) -> None:
    with (
        registries.serve(tmp_path) as registry,
        serving.daemon("--drop-compressed-blobs") as daemon,
    ):
        name = f"{registry}/dropped:1"

        def docker(*arguments: str, sent: bytes = b"") -> bytes:
            return subprocess.run(
                ["docker", *arguments],
                env={**os.environ, "DOCKER_HOST": daemon.host, "DOCKER_CONFIG": f"{tmp_path}/none"},
                input=sent,
                capture_output=True,
                check=True,
                timeout=60,
            ).stdout

        def await_dropped() -> None:
            """Until no blob is as large as the layer's archive; looks again after each question asked."""
            ends = time.monotonic() + 60
            while _largest(Path(daemon.root)) > 100_000:
                assert time.monotonic() < ends
                docker("info")

        docker("load", sent=archives.pack(archives.oci_files([LAYER], name)))
        await_dropped()
        docker("push", name)
        docker("rmi", name)
        docker("pull", name)
        await_dropped()
        assert b"Image is up to date" in docker("pull", name)
        with tarfile.open(fileobj=io.BytesIO(docker("save", name))) as saved:
            contents = [file.read() for one in saved if (file := saved.extractfile(one)) is not None]
        assert LAYER in contents


def _largest(root: Path) -> int:
    """Bytes of the largest blob; what goes meanwhile is passed over."""
    sizes = [0]
    for path in root.glob("**/blobs/sha256/*"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)

"""Registries that want TLS or to know who asks: Debian's docker-registry and an authority for the test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import registries, serving
from tests.e2e.conftest import PROGRAMS, Client

pytestmark = pytest.mark.skipif(
    not shutil.which("docker-registry") or not shutil.which("openssl"),
    reason="needs docker-registry",
)

# bcrypt of "secret", which is all that docker-registry takes.
ALICE = "alice:$2b$05$VSvdWgG3GbQKiIrT/5QhQu30gTp6bPS/AfjSph2unUTKcxnwutq7K\n"


def authority(place: Path) -> None:
    """``ca.crt``, and ``server.crt`` with its key for localhost."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=place, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ca = ("-addext", "basicConstraints=critical,CA:TRUE")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test", *ca)
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=registry.test")
    (place / "names").write_text("subjectAltName=DNS:registry.test\n")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-out", "server.crt", "-extfile", "names"),
    )


@pytest.fixture
def by_name() -> Iterator[None]:
    """registry.test is this machine, while the test lasts."""
    path = Path("/etc/hosts")
    before = path.read_text()
    path.write_text(before.rstrip("\n") + "\n127.0.0.1 registry.test\n")
    try:
        yield
    finally:
        path.write_text(before)


def test_a_private_authority_is_trusted_where_it_is_put(
    tmp_path: Path, by_name: None, docker: str, image: str
) -> None:
    authority(tmp_path)
    tls = {"certificate": f"{tmp_path}/server.crt", "key": f"{tmp_path}/server.key"}
    with registries.serve(tmp_path, "https", http={"tls": tls}) as address, serving.daemon() as daemon:
        host = f"registry.test:{address.rpartition(':')[2]}"
        environment = {**os.environ, "DOCKER_HOST": daemon.host, "DOCKER_CONFIG": f"{tmp_path}/none"}

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [docker, *arguments], env=environment, capture_output=True, text=True, check=False
            )

        run("tag", image, f"{host}/a:x")
        refused = run("push", f"{host}/a:x")
        assert refused.returncode == 1
        assert "x509: certificate signed by unknown authority" in refused.stderr
        place = Path("/etc/docker/certs.d", host)
        place.mkdir(parents=True)
        try:
            shutil.copy(tmp_path / "ca.crt", place)
            pushed = run("push", f"{host}/a:x")
            assert pushed.returncode == 0, pushed.stderr
            run("rmi", f"{host}/a:x")
            pulled = run("pull", f"{host}/a:x")
            assert pulled.returncode == 0, pulled.stderr
        finally:
            shutil.rmtree(place)
        run("rmi", f"{host}/a:x")


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_who_asks_is_shown_when_it_is_wanted(
    client: Client, environment: dict[str, str], image: str, tmp_path: Path, program: str
) -> None:
    (tmp_path / "htpasswd").write_text(ALICE)
    auth = {"htpasswd": {"realm": "test", "path": f"{tmp_path}/htpasswd"}}
    with registries.serve(tmp_path, auth=auth) as host:

        def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*PROGRAMS[program], *arguments],
                env={**environment, "DOCKER_CONFIG": str(tmp_path)},
                input=text,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )

        name = f"{host}/private:x"
        run("tag", image, name)
        nobody = run("push", name)
        assert nobody.returncode == 1
        assert nobody.stderr.strip() == "no basic auth credentials"
        wrong = run("login", "-u", "alice", "--password-stdin", host, text="wrong")
        assert wrong.returncode == 1
        assert "unauthorized" in wrong.stderr
        right = run("login", "-u", "alice", "--password-stdin", host, text="secret")
        assert (right.returncode, "Login Succeeded" in right.stdout) == (0, True), right.stderr
        assert host in json.loads((tmp_path / "config.json").read_text())["auths"]
        assert run("push", name).returncode == 0
        run("rmi", name)
        assert run("pull", name).returncode == 0
        assert run("logout", host).returncode == 0
        run("rmi", name)
        denied = run("pull", name)
        assert denied.returncode == 1
        assert denied.stderr.strip().endswith("no basic auth credentials")

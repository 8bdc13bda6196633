"""Contexts shared with Docker's client, and engines that are reached by SSH and by TLS."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.e2e.conftest import PROGRAMS
from tests.e2e.serving import Daemon

pytestmark = [pytest.mark.root, pytest.mark.e2e]

Run: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path, docker: str) -> Run:
    """Run ``docker`` or ``sampan`` with arguments, at home in a folder of their own."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    sampan = bin_folder / "sampan"
    sampan.write_text(f'#!/bin/sh\nexec {sys.executable} -m sampan "$@"\n')
    # in place of an SSH server: what would run on the other host runs here
    ssh = bin_folder / "ssh"
    ssh.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/ssh.log\nwhile [ "$1" != -- ]; do shift; done\n'
        'test "$2" = host || { echo "no route to $2" >&2; exit 255; }\nshift 2\nexec sh -c "$*"\n'
    )
    for script in (sampan, ssh):
        script.chmod(0o755)
    environment = {"HOME": str(tmp_path), "PATH": f"{bin_folder}:{os.environ['PATH']}"}

    def act(program: str, *arguments: str, text: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAMS[program], *arguments],
            input=text,
            capture_output=True,
            text=True,
            env={**environment, **more},
            timeout=60,
            check=False,
        )

    return act


@pytest.mark.parametrize(("one", "other"), [("docker", "sampan"), ("sampan", "docker")])
def test_a_context_of_one_program_serves_the_other(run: Run, daemon: Daemon, one: str, other: str) -> None:
    made = run(one, "context", "create", "ours", "--docker", f"host={daemon.host}", "--description", "a b")
    assert (made.stdout, made.stderr) == ("ours\n", 'Successfully created context "ours"\n')
    assert run(one, "context", "use", "ours").stdout == "ours\n"
    assert run(other, "context", "show").stdout == "ours\n"
    lines = run(other, "context", "ls", "--format", "json").stdout.splitlines()
    listed = [json.loads(line) for line in lines]
    assert {
        "Current": True,
        "Description": "a b",
        "DockerEndpoint": daemon.host,
        "Error": "",
        "Name": "ours",
    } in listed
    assert run(one, "context", "inspect").stdout == run(other, "context", "inspect").stdout
    images = run(other, "image", "ls", "--format", "{{.Repository}}")
    assert (images.returncode, images.stdout) == (0, "busybox\n")
    assert run(other, "context", "export", "ours", "-").stdout
    kept = run(other, "context", "rm", "ours").stderr
    assert kept == 'context "ours" is in use, set -f flag to force remove\n'
    assert run(other, "context", "rm", "--force", "ours").stdout == "ours\n"
    assert run(one, "context", "show").stdout == "default\n"


@pytest.mark.parametrize(("one", "other"), [("docker", "sampan"), ("sampan", "docker")])
def test_an_exported_context_is_imported(
    run: Run, tmp_path: Path, certificate: tuple[str, str], one: str, other: str
) -> None:
    authority, key = certificate
    host = f"host=tcp://host:2376,ca={authority},cert={authority},key={key}"
    assert run(one, "context", "create", "ours", "--docker", host).returncode == 0
    file = str(tmp_path / "exported")
    assert run(one, "context", "export", "ours", file).stderr == f'Written file "{file}"\n'
    assert run(other, "context", "import", "theirs", file).stderr == (
        'Successfully imported context "theirs"\n'
    )
    found = [run(program, "context", "inspect", "theirs").stdout for program in ("docker", "sampan")]
    assert found[0] == found[1]
    assert json.loads(found[0])[0]["TLSMaterial"] == {"docker": ["ca.pem", "cert.pem", "key.pem"]}


def test_which_engine_is_meant(run: Run, daemon: Daemon) -> None:
    nowhere, here = "unix:///nowhere", daemon.host
    run("sampan", "context", "create", "here", "--docker", f"host={here}")
    run("sampan", "context", "create", "nowhere", "--docker", f"host={nowhere}")
    for arguments, variables in (
        (["-H", here], {"SAMPAN_HOST": nowhere}),
        (["--context", "here"], {"SAMPAN_HOST": nowhere}),
        ([], {"SAMPAN_HOST": here, "DOCKER_HOST": nowhere}),
        ([], {"DOCKER_HOST": here, "DOCKER_CONTEXT": "nowhere"}),
        ([], {"DOCKER_CONTEXT": "here"}),
    ):
        done = run("sampan", *arguments, "ps", "-q", **variables)
        assert (done.returncode, done.stderr) == (0, ""), (arguments, variables)
    run("sampan", "context", "use", "nowhere")
    assert run("sampan", "ps").stderr.startswith(f"Cannot connect to the Sampan daemon at {nowhere}")


# ---- SSH ---------------------------------------------------------------------------------------------------


def test_an_engine_behind_ssh(run: Run, daemon: Daemon, image: str, tmp_path: Path) -> None:
    host = f"ssh://user@host:2222{daemon.socket}"
    script = "read x; echo got $x; exit 4"
    done = run("sampan", "-H", host, "run", "--rm", "-i", image, "sh", "-c", script, text="this\n")
    assert (done.returncode, done.stdout, done.stderr) == (4, "got this\n", "")
    asked = (tmp_path / "ssh.log").read_text().splitlines()[0]
    assert asked.startswith("-o ConnectTimeout=30 -T -l user -p 2222 -- host sh -c ")
    failed = run("sampan", "-H", "ssh://elsewhere", "ps")
    assert failed.returncode == 1
    assert "no route to elsewhere\n" in failed.stderr
    assert "error during connect: " in failed.stderr


def test_dockers_client_reaches_us_by_ssh(run: Run, daemon: Daemon, image: str) -> None:
    """Its side of SSH asks for ``docker system dial-stdio``, ours answers ``sampan system dial-stdio``."""
    done = run("sampan", "-H", daemon.host, "system", "dial-stdio", text=_PING)
    assert done.stdout.startswith("HTTP/1.1 200 OK\n")
    assert done.stdout.endswith("OK")


_PING = "GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


# ---- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    names = ("-subj", "/CN=sampan", "-addext", "subjectAltName=IP:127.0.0.1")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    command += ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/ca.pem"]
    subprocess.run(command, check=True, capture_output=True)
    return f"{folder}/ca.pem", f"{folder}/key.pem"


@pytest.fixture
def secured(daemon: Daemon, certificate: tuple[str, str]) -> Iterator[str]:
    """A TLS front of the daemon that wants the client's certificate; its address."""
    rules = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    rules.load_cert_chain(*certificate)
    rules.load_verify_locations(certificate[0])
    rules.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_front, args=(rules, plain, daemon.socket), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def _front(rules: ssl.SSLContext, plain: socket.socket, path: str) -> None:
    """Carry one connection, half-closed as it is."""
    with contextlib.suppress(OSError), plain, socket.socket(socket.AF_UNIX) as engine:
        engine.connect(path)
        with rules.wrap_socket(plain, server_side=True) as peer:

            def back() -> None:
                with contextlib.suppress(OSError):
                    while data := engine.recv(65536):
                        peer.sendall(data)
                    peer.unwrap()

            answer = threading.Thread(target=back, daemon=True)
            answer.start()
            while data := peer.recv(65536):
                engine.sendall(data)
            engine.shutdown(socket.SHUT_WR)
            answer.join()


def test_an_engine_behind_tls(run: Run, secured: str, certificate: tuple[str, str], image: str) -> None:
    authority, key = certificate
    flags = ("--tlsverify", "--tlscacert", authority, "--tlscert", authority, "--tlskey", key, "-H", secured)
    script = "read x; echo got $x; exit 4"
    done = run("sampan", *flags, "run", "--rm", "-i", image, "sh", "-c", script, text="this\n")
    assert (done.returncode, done.stdout, done.stderr) == (4, "got this\n", "")
    named = f"host={secured},ca={authority},cert={authority},key={key}"
    assert run("sampan", "context", "create", "secured", "--docker", named).returncode == 0
    assert run("sampan", "--context", "secured", "image", "ls", "-q").returncode == 0
    assert run("sampan", "-H", secured, "ps").returncode == 1  # plain


def test_a_stranger_is_not_trusted(
    run: Run, secured: str, certificate: tuple[str, str], tmp_path: Path
) -> None:
    names = ("-subj", "/CN=other", "-keyout", f"{tmp_path}/key.pem", "-out", f"{tmp_path}/ca.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names],
        check=True,
        capture_output=True,
    )
    done = run("sampan", "-H", secured, "ps", DOCKER_TLS_VERIFY="1", DOCKER_CERT_PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "error during connect: tls: self-signed certificate\n"
    missing = run("sampan", "--tlsverify", "-H", secured, "ps")
    assert missing.stderr == (
        "Failed to initialize: unable to resolve docker endpoint: "
        f"open {tmp_path}/.docker/ca.pem: no such file or directory\n"
    )

"""A registry that wants tokens, and credentials that a helper keeps; what one client did the other finds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.e2e import registries, tokens
from tests.e2e.conftest import PROGRAMS
from tests.e2e.tokens import TokenServer

pytestmark = pytest.mark.skipif(
    not shutil.which("docker-registry") or not shutil.which("openssl"), reason="needs docker-registry"
)

Run: TypeAlias = "Callable[..., subprocess.CompletedProcess[str]]"

# A credential helper by Docker's protocol; it keeps what it is told in files named by the server.
HELPER = """#!/bin/sh
store=$(dirname "$0")/kept
mkdir -p "$store"
if [ "$1" = list ]; then echo '{}'; exit; fi
text=$(cat)
server=$text
[ "$1" = store ] && server=$(printf %s "$text" | sed 's/.*"ServerURL":"\\([^"]*\\)".*/\\1/')
file=$store/$(printf %s "$server" | tr / _)
case $1 in
store) printf %s "$text" >"$file" ;;
erase) rm -f "$file" ;;
get) if [ -e "$file" ]; then cat "$file"; else echo 'credentials not found in native keychain'; exit 1; fi ;;
esac
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarded:
    """A registry at ``host`` and the server of its tokens."""

    host: str
    server: TokenServer


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    place = tmp_path_factory.mktemp("guarded")
    with tokens.serve(place) as server, registries.serve(place, auth=server.settings()) as host:
        yield Guarded(host=host, server=server)


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """Run a client whose settings lie in ``tmp_path``, which is where helpers are found, too."""
    own = {**environment, "DOCKER_CONFIG": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def run(program: str, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAMS[program], *arguments],
            env=own,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def login(run: Run, program: str, host: str, password: str) -> subprocess.CompletedProcess[str]:
    return run(program, "login", "-u", tokens.NAME, "--password-stdin", host, text=password)


@pytest.mark.parametrize("program", ["docker", "sampan"])
def test_what_a_token_allows_is_done_and_the_rest_is_denied(
    guarded: Guarded, run: Run, image: str, tmp_path: Path, program: str
) -> None:
    host = guarded.host
    names = [f"{host}/{repository}/{program}:x" for repository in ("public", "private")]
    for name in names:
        run(program, "tag", image, name)
    nobody = run(program, "push", names[0])
    assert nobody.returncode == 1
    assert nobody.stderr.strip() == "denied: requested access to the resource is denied"
    wrong = login(run, program, host, "wrong")
    assert wrong.returncode == 1
    assert "unauthorized: incorrect username or password" in wrong.stderr
    assert login(run, program, host, tokens.PASSWORD).returncode == 0
    # The password is not kept where the server gave a token that stands for it.
    kept = json.loads((tmp_path / "config.json").read_text())["auths"][host]
    assert kept["identitytoken"] == tokens.LASTING
    guarded.server.asked.clear()
    for name in names:
        pushed = run(program, "push", name)
        assert pushed.returncode == 0, pushed.stderr
    assert {method for method, _, _ in guarded.server.asked} == {"POST"}
    scopes = {scope for _, asked, _ in guarded.server.asked for scope in asked["scope"]}
    # The second is handed over by the first: it needs a token for both.
    assert any(f"repository:private/{program}:pull,push repository:public/" in scope for scope in scopes)
    assert "Mounted from" in pushed.stdout
    run(program, "logout", host)
    run(program, "rmi", *names)
    pulled = run(program, "pull", names[0])
    assert pulled.returncode == 0, pulled.stderr
    denied = run(program, "pull", names[1])
    assert denied.returncode == 1
    assert denied.stderr.strip().removeprefix("Error response from daemon: ") == (
        f"pull access denied for {host}/private/{program}, repository does not exist or may require "
        "'docker login': denied: requested access to the resource is denied"
    )
    run(program, "rmi", names[0])


@pytest.mark.parametrize(("first", "second"), [("docker", "sampan"), ("sampan", "docker")])
@pytest.mark.parametrize("setting", ["credsStore", "credHelpers"])
def test_what_one_client_gave_a_helper_the_other_gets_from_it(
    guarded: Guarded, run: Run, image: str, tmp_path: Path, first: str, second: str, setting: str
) -> None:
    host = guarded.host
    helper = tmp_path / "docker-credential-filed"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    value = "filed" if setting == "credsStore" else {host: "filed"}
    (tmp_path / "config.json").write_text(json.dumps({setting: value}))
    name = f"{host}/private/{first}-{setting.lower()}:x"
    run("docker", "tag", image, name)
    done = login(run, first, host, tokens.PASSWORD)
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "kept").iterdir()
    found = json.loads(kept.read_text())
    # Docker's word for a secret that is an identity token.
    assert (found["Username"], found["Secret"]) == ("<token>", tokens.LASTING)
    assert tokens.LASTING not in (tmp_path / "config.json").read_text()
    for program in (first, second):
        pushed = run(program, "push", name)
        assert pushed.returncode == 0, pushed.stderr
    run("docker", "rmi", name)
    assert run(second, "pull", name).returncode == 0
    assert run(second, "logout", host).returncode == 0
    assert list((tmp_path / "kept").iterdir()) == []
    refused = run(first, "push", name)
    assert refused.returncode == 1
    assert refused.stderr.strip() == "denied: requested access to the resource is denied"
    run("docker", "rmi", name)

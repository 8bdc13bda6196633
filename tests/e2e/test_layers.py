"""An image of a hundred layers goes through everything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import archives
from tests.e2e import images
from tests.e2e.conftest import Client
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

COUNT = 100


@pytest.fixture
def name(client: Client, daemon: Daemon, tmp_path: Path, registry: str) -> Iterator[str]:
    """An image of busybox's layer and 99 more; each writes a file of its own and into one that all have."""
    name = f"{registry}/layers:{COUNT}"
    base = images.busybox_layer()
    above = [archives.layer(**{f"f{number}": b"", "last": b"%d" % number}) for number in range(1, COUNT)]
    files = archives.docker_files([base, *above], [name], config={"Env": ["PATH=/bin"], "Cmd": ["sh"]})
    status, said = ask(daemon.socket, "POST", "/images/load?quiet=1", archives.pack(files))
    assert (status, name in said.decode()) == (200, True)
    yield name
    client("sampan", ["rmi", "-f", name])


def _works(client: Client, name: str) -> None:
    ran = client("sampan", ["run", "--rm", name, "sh", "-c", "cat /last; ls -d /f* | wc -l"])
    assert (ran.returncode, ran.stdout) == (0, f"{COUNT - 1}{COUNT - 1}\n"), ran.stderr


def test_a_hundred_layers(client: Client, name: str, tmp_path: Path) -> None:
    def done(*words: str) -> str:
        ended = client("sampan", list(words))
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    _works(client, name)
    identity = done("inspect", "-f", "{{.Id}} {{len .RootFS.Layers}}", name)
    assert identity.endswith(f" {COUNT}\n")
    paths = [str(tmp_path / number) for number in ("1", "2")]
    done("save", "-o", paths[0], name)
    assert done("push", name).count(": Pushed\n") == COUNT
    done("rmi", name)
    # The lowest layer is also that of the image which is always here.
    assert done("pull", name).count(": Pull complete\n") >= COUNT - 1
    assert done("inspect", "-f", "{{.Id}} {{len .RootFS.Layers}}", name) == identity
    _works(client, name)
    done("rmi", name)
    done("load", "-i", paths[0])
    done("save", "-o", paths[1], name)
    assert Path(paths[0]).read_bytes() == Path(paths[1]).read_bytes()
    _works(client, name)

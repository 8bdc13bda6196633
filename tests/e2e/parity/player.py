"""Plays scenes on an engine."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from tests.e2e.images import NAME
from tests.e2e.parity.masks import mask
from tests.e2e.parity.scene import METHODS, Answer, Scene
from tests.e2e.talk import ask

SECONDS = 20  # for one call; none takes a tenth of it

READY = """#!/bin/sh
until docker logs "$1" 2>&1 | grep -q ready; do :; done
"""


class Player:
    """Plays on the engine whose socket is at ``socket``, with the Docker client ``docker``.

    ``image`` is the archive of the image that each scene finds.
    """

    def __init__(self, socket: str, docker: str, image: bytes) -> None:
        self._socket = socket
        self._docker = docker
        self._image = image
        self._root: str = self._get("/info")["DockerRootDir"]

    def play(self, scene: Scene) -> Iterator[tuple[str, Answer]]:
        """The calls of the scene with their answers; afterwards the engine is as before."""
        with tempfile.TemporaryDirectory(prefix="parity-") as directory:
            os.symlink(self._docker, f"{directory}/docker")
            os.mkdir(f"{directory}/t")
            with open(f"{directory}/ready", "w", opener=_executable) as script:
                script.write(READY)
            environment = {
                "PATH": f"{directory}:{os.environ['PATH']}",
                "DOCKER_HOST": f"unix://{self._socket}",
                "DOCKER_CONFIG": directory,
                "T": f"{directory}/t",
                "START": f"{time.time():.9f}",
                "LC_ALL": "C",
                "TZ": "UTC",
            }
            try:
                for line in scene.lines():
                    if line.startswith("-"):
                        answer = self._type(line[1:], environment)
                        assert answer.code == 0, f"{line}: {answer}"
                    elif line.startswith(METHODS):
                        yield line, self._masked(self._request(line), directory)
                    else:
                        yield line, self._masked(self._type(line, environment), directory)
            finally:
                self.clear()

    def _type(self, line: str, environment: dict[str, str]) -> Answer:
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=SECONDS,
        )
        return Answer(
            code=done.returncode,
            out=done.stdout.decode(errors="backslashreplace"),
            err=done.stderr.decode(errors="backslashreplace"),
        )

    def _request(self, line: str) -> Answer:
        method, _, rest = line.partition(" ")
        target, separator, body = rest.partition(" ")
        status, answer = ask(self._socket, method, target, body.encode() if separator else None)
        return Answer(code=status, out=_sorted(answer.decode(errors="backslashreplace")), err="")

    def _masked(self, answer: Answer, directory: str) -> Answer:
        place = f"{directory}/t"
        return Answer(
            code=answer.code,
            out=mask(answer.out, directory=place, root=self._root),
            err=mask(answer.err, directory=place, root=self._root),
        )

    def clear(self) -> None:
        """Remove every container and volume, and every image but the one, which is loaded if it is gone."""
        for container in self._get("/containers/json?all=1"):
            self._remove(f"/containers/{container['Id']}?force=1&v=1")
        for volume in self._get("/volumes")["Volumes"] or ():
            self._remove(f"/volumes/{volume['Name']}")
        for image in self._get("/images/json"):
            tags = [tag for tag in image["RepoTags"] or () if tag != "<none>:<none>"]
            for name in tags or [image["Id"]]:
                if name != NAME:
                    self._remove(f"/images/{quote(name)}?force=1")
        status, _ = ask(self._socket, "GET", f"/images/{NAME}/json")
        if status == 404:
            status, said = ask(self._socket, "POST", "/images/load?quiet=1", self._image)
            assert status == 200, said

    def _get(self, target: str) -> Any:
        status, body = ask(self._socket, "GET", target)
        assert status == 200, body
        return json.loads(body)

    def _remove(self, target: str) -> None:
        status, body = ask(self._socket, "DELETE", target)
        assert status in (200, 204, 404), (target, body)


def _executable(path: str, flags: int) -> int:
    return os.open(path, flags, 0o755)


def _sorted(text: str) -> str:
    """JSON with its members in order, since Go and others each have theirs; other text as it is."""
    lines = text.splitlines()
    try:
        return "".join(json.dumps(json.loads(line), sort_keys=True) + "\n" for line in lines)
    except ValueError:
        return text

"""Builds on two engines: equal images of equal inputs; and a build cache that keeps to its limit."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import images, serving
from tests.e2e.building import NAME, Builder, nothing_left
from tests.e2e.conftest import PROGRAMS
from tests.e2e.talk import ask

__all__ = ["nothing_left"]

pytestmark = [pytest.mark.root, pytest.mark.e2e]
LIMIT = 400_000


@pytest.fixture(scope="module")
def other() -> Iterator[serving.Daemon]:
    """An engine with another root, and little room for its build cache."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with serving.daemon("--build-cache-limit", str(LIMIT)) as served:
        yield served


@pytest.fixture
def builders(
    environment: dict[str, str], other: serving.Daemon, tmp_path: Path
) -> Iterator[tuple[Builder, Builder]]:
    (tmp_path / "context").mkdir()
    there = {**environment, "SAMPAN_HOST": other.host}
    found = (
        Builder(PROGRAMS["sampan"], environment, tmp_path / "context"),
        Builder(PROGRAMS["sampan"], there, tmp_path / "context"),
    )
    yield found
    for one in found:
        one.forget()


FILES = f"""\
FROM {images.NAME} AS tool
COPY --chmod=755 script /usr/local/bin/script
FROM {images.NAME}
LABEL a=b
WORKDIR /new/dir
COPY . /app/
ADD archive.tar /unpacked/
COPY --from=tool /usr/local/bin/script /bin/script
COPY <<END /inline
text
END
ENV X=1
CMD ["script"]
"""


def test_equal_inputs_give_equal_images_on_any_engine(builders: tuple[Builder, Builder]) -> None:
    here, there = builders
    here.file("script", "#!/bin/sh\n")
    here.file("d/file", "data")
    os.symlink("file", here.folder / "d/link")
    subprocess.run(["tar", "-C", here.folder, "-cf", here.folder / "archive.tar", "d"], check=True)
    here.file("Dockerfile", FILES)
    for path in (*here.folder.rglob("*"), here.folder):
        os.utime(path, (1_600_000_000, 1_600_000_000), follow_symlinks=False)
    # Nothing was run: no clock has a say.
    made = [one.run("build", "-q", "-t", NAME, str(here.folder)) for one in builders]
    assert made[0].stdout == made[1].stdout, [one.stderr for one in made]

    here.file("Dockerfile", f"{FILES}RUN date -r /app/d/file > /out && mkdir /made && touch /made/empty\n")
    epoch = ("--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1500000000")
    made = [one.run("build", "-q", *epoch, "-t", NAME, str(here.folder)) for one in builders]
    assert made[0].stdout == made[1].stdout, [one.stderr for one in made]
    assert there.sh("stat -c %Y /made /made/empty /app/d/file /new/dir | sort -u") == "1500000000\n"


def test_the_cache_keeps_to_its_limit(builders: tuple[Builder, Builder], other: serving.Daemon) -> None:
    _, there = builders
    for number in range(4):
        there.built(
            f"FROM {images.NAME}\nRUN --mount=type=cache,id={number},target=/c"
            " dd if=/dev/zero of=/c/f bs=1k count=150 2> /dev/null\n"
        )
    deadline = time.monotonic() + 60
    while size(other) > LIMIT:
        assert time.monotonic() < deadline
    # What was used last is what is left.
    there.built(f"FROM {images.NAME}\nRUN --mount=type=cache,id=3,target=/c ls /c > /kept\n")
    assert there.sh("cat /kept") == "f\n"


def size(engine: serving.Daemon) -> int:
    status, body = ask(engine.socket, "GET", "/v1.41/system/df?type=build-cache")
    assert status == 200
    records = json.loads(body)["BuildCache"] or []
    return sum(record["Size"] for record in records if not record["Shared"])

"""What a plain history tells of a RUN: of the classic builder's images and ours, and never of BuildKit's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sampan.engine import buildhistory
from sampan.images.model import Image
from sampan.spec import digest as digests
from sampan.spec import image as documents
from sampan.spec.digest import Digest

BASE: dict[str, Any] = {"created": "2024-01-02T03:04:05Z", "created_by": "BusyBox"}
IDS = [digests.of(bytes([number])) for number in range(4)]
WORDS = "RUN /bin/sh -c make"
CLASSIC: list[dict[str, Any]] = [
    BASE,
    {"created_by": "/bin/sh -c #(nop)  ENV A=b C=d", "empty_layer": True},
    {"created_by": '/bin/sh -c #(nop)  CMD ["x"]', "empty_layer": True},
    {"created_by": "/bin/sh -c #(nop) COPY file:123 in /x "},
    {"created_by": "/bin/sh -c make", "created": "1970-01-01T00:00:07Z"},
]
OURS: list[dict[str, Any]] = [
    BASE,
    {"created_by": "ENV A=b C=d", "empty_layer": True},
    {"created_by": "COPY x /x"},
]
ENVIRONMENT = ("PATH=/bin", "A=b", "C=d")


def image(history: list[dict[str, Any]], env: tuple[str, ...] = ENVIRONMENT) -> Image:
    layers = IDS[: sum(1 for entry in history if not entry.get("empty_layer"))]
    members = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": list(env)},
        "rootfs": {"type": "layers", "diff_ids": layers},
        "history": history,
    }
    raw = json.dumps(members).encode()
    return Image(
        id=digests.of(raw),
        config=documents.parse_image(raw),
        manifest=None,
        chain=digests.chain_ids(layers),
        blobs=(),
        size=0,
        max_id=0,
        loaded_ns=0,
        tagged_ns=0,
    )


def found(
    theirs: Image, history: list[dict[str, Any]] = OURS, env: tuple[str, ...] = ENVIRONMENT
) -> tuple[Digest | None, int] | None:
    layers = IDS[: sum(1 for entry in history if not entry.get("empty_layer"))]
    return buildhistory.found(
        theirs, history=history, base=(1, 1), diff_ids=layers, environment=env, words=WORDS
    )


@pytest.mark.parametrize("words", ["/bin/sh -c make", WORDS])
def test_a_run_is_found(words: str) -> None:
    theirs = image([*CLASSIC[:-1], {**CLASSIC[-1], "created_by": words}])
    assert found(theirs) == (theirs.chain[2], 7_000_000_000)


def test_a_run_that_left_nothing_is_found() -> None:
    theirs = image([*CLASSIC[:-1], {**CLASSIC[-1], "empty_layer": True}])
    assert found(theirs) == (theirs.chain[1], 7_000_000_000)


def test_an_image_without_a_path_has_the_usual_one() -> None:
    usual = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", *ENVIRONMENT[1:])
    assert found(image(CLASSIC, ENVIRONMENT[1:]), env=usual) is not None
    assert found(image(CLASSIC, ENVIRONMENT[1:])) is None


@pytest.mark.parametrize(
    "theirs",
    [
        image([]),
        image(CLASSIC[:-1]),
        image([{**BASE, "created": "2024-01-02T03:04:06Z"}, *CLASSIC[1:]]),
        image([*CLASSIC[:1], *CLASSIC[2:]]),
        image([*CLASSIC[:-1], {"created_by": "USER 1", "empty_layer": True}, CLASSIC[-1]]),
        image([*CLASSIC[:-1], {"created_by": "VOLUME [/x]", "empty_layer": True}, CLASSIC[-1]]),
        image([*CLASSIC[:-1], {**CLASSIC[-1], "created_by": "/bin/sh -c make all"}]),
        image([*CLASSIC[:-1], {**CLASSIC[-1], "created_by": "|1 A=b /bin/sh -c make"}]),
        image([*CLASSIC[:-1], {**CLASSIC[-1], "comment": "buildkit.dockerfile.v0"}]),
        image([*CLASSIC[:-1], {**CLASSIC[-1], "created_by": f"{WORDS} # buildkit"}]),
        image([*CLASSIC[:-1], {**CLASSIC[-1], "created_by": "RUN --mount=type=tmpfs /bin/sh -c make"}]),
        image(CLASSIC, ("PATH=/bin", "A=b C=d")),
        image(CLASSIC, ("PATH=/other", "A=b", "C=d")),
    ],
)
def test_anything_else_is_not(theirs: Image) -> None:
    assert found(theirs) is None


def test_a_base_without_history_is_not_known_by_its_layers() -> None:
    history = OURS[1:]
    theirs = image(CLASSIC)
    assert (
        buildhistory.found(
            theirs, history=history, base=(0, 1), diff_ids=IDS[:2], environment=ENVIRONMENT, words=WORDS
        )
        is None
    )


def test_other_layers_are_not_the_same() -> None:
    """A COPY that came out as another layer."""
    theirs = image(CLASSIC)
    layers = [IDS[0], IDS[3]]
    assert (
        buildhistory.found(
            theirs, history=OURS, base=(1, 1), diff_ids=layers, environment=ENVIRONMENT, words=WORDS
        )
        is None
    )

"""Stages: what a target needs, how they are named, and that there is no way to a loop."""

from __future__ import annotations

import pytest

from sampan.build import dockerfile, stages
from sampan.build.dockerfile import DockerfileError
from sampan.build.stages import Recipe
from sampan.errors import InvalidArgument

AUTOMATIC = {"TARGETARCH": "amd64", "BUILDPLATFORM": "linux/amd64"}


def understand(text: str, **given: str) -> Recipe:
    return stages.understand(dockerfile.parse(text), given, AUTOMATIC)


def names(recipe: Recipe, target: str = "") -> list[str]:
    return [stage.name or str(stage.number) for stage in recipe.needed(recipe.target(target))]


FILE = """\
FROM busybox AS base
FROM base AS one
COPY --from=0 /a /b
FROM base AS two
RUN --mount=from=one,target=/m true
FROM scratch AS unused
FROM two
COPY --from=alpine /x /y
"""


@pytest.mark.parametrize(
    ("target", "needed"),
    [
        ("", ["base", "one", "two", "4"]),
        ("one", ["base", "one"]),
        ("ONE", ["base", "one"]),
        ("unused", ["unused"]),
        ("0", ["base"]),
        ("2", ["base", "one", "two"]),
    ],
)
def test_only_what_the_target_needs_is_built(target: str, needed: list[str]) -> None:
    assert names(understand(FILE), target) == needed


def test_a_target_that_is_none() -> None:
    with pytest.raises(InvalidArgument, match='target stage "x" could not be found'):
        understand(FILE).target("x")


def test_arguments_before_from() -> None:
    text = "ARG base=busybox\nARG tag=1\nFROM --platform=$BUILDPLATFORM $base:${tag}-$TARGETARCH\n"
    stage = understand(text, tag="7").stages[0]
    assert (stage.image, stage.platform) == ("busybox:7-amd64", "linux/amd64")


def test_a_name_given_twice_means_the_last_before() -> None:
    recipe = understand("FROM a AS x\nFROM b AS x\nFROM x\n")
    assert recipe.stages[2].base == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM x\nCOPY --from=0 a b\n", "invalid stage index 0"),
        ("FROM x\nCOPY --from=1 a b\nFROM y\n", "invalid stage index 1"),
        ("FROM x AS own\nCOPY --from=Own a b\n", "circular dependency detected on stage: own"),
        ("RUN x\n", "no build stage in current context"),
        ("ARG a\n", "no build stage in current context"),
        ("FROM $nothing\n", "."),
        ("FROM ${x:?needed}\n", "needed"),
        ("FROM a\n" * (stages.STAGE_LIMIT + 2), "more than 1000 stages"),
    ],
)
def test_what_cannot_be_built_says_where(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message):
        understand(text)

"""What instructions mean, and what is refused with which words at which line."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.build import dockerfile, instructions
from sampan.build.dockerfile import DockerfileError


def read(text: str) -> Any:
    """The last instruction of a file."""
    return [instructions.read(source) for source in dockerfile.parse(text).instructions][-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1x", "invalid name for build stage"),
        ("FROM a AS b c", "FROM requires either one or three arguments"),
        ("FROM --nonsense=1 a", "unknown flag: --nonsense"),
        ("FROM --platform a", "missing a value on flag: platform"),
        ("RUN --mount=type=wonder,target=/x true", "unsupported mount type"),
        ("RUN --mount=type=cache true", "requires a target"),
        ("RUN --mount=typ=cache,target=/x true", "unexpected key 'typ'"),
        ("RUN --network=nowhere true", "invalid network mode"),
        ("RUN --security=none true", "is not valid"),
        ("RUN", "requires at least one argument"),
        ("COPY a", "requires at least two arguments"),
        ("COPY --from=x --from=y a b", "duplicate flag specified: from"),
        ("COPY --link=maybe a b", "expecting boolean value for flag link"),
        ("COPY --checksum=x a b", "unknown flag: --checksum"),
        ("ADD --from=x a b", "unknown flag: --from"),
        ("SHELL /bin/sh", "SHELL requires the arguments to be in JSON form"),
        ("WORKDIR", "requires exactly one argument"),
        ("HEALTHCHECK", "requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK MAYBE x", "unknown type"),
        ("HEALTHCHECK --interval=1us CMD x", "cannot be less than 1ms"),
        ("HEALTHCHECK --interval=x CMD x", "invalid duration"),
        ("HEALTHCHECK --retries=x CMD x", "invalid retries"),
        ("HEALTHCHECK CMD", "missing command after HEALTHCHECK CMD"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD COPY x", "requires at least two arguments"),
        ("ENV", "ENV requires at least one argument"),
        ("ARG =x", "ARG names can not be blank"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_line(text: str, message: str) -> None:
    with pytest.raises(DockerfileError, match=message) as caught:
        read(f"FROM a\n# two\n{text}\n")
    assert caught.value.first == 3


def test_flags_of_copy() -> None:
    step = read(
        "COPY --from=s --chown=1:2 --chmod=644 --link --parents --exclude=*.o --exclude=x/** a b /c/\n"
    )
    assert (step.origin, step.chown, step.chmod, step.link, step.parents) == ("s", "1:2", "644", True, True)
    assert (step.exclude, step.sources, step.target) == (("*.o", "x/**"), ("a", "b"), "/c/")


def test_mounts_of_run() -> None:
    step = read("RUN --mount=type=cache,id=x,dst=/c,ro --mount=src=a,target=/b,rw true\n")
    cache, bind = step.mounts
    assert (cache.kind, cache["id"], cache["target"], cache["readonly"]) == ("cache", "x", "/c", "true")
    assert (bind.kind, bind["source"], bind["readwrite"]) == ("bind", "a", "true")


def test_a_health_check_in_both_forms() -> None:
    plain = read("HEALTHCHECK --interval=5s --timeout=1m --retries=2 CMD curl -f http://x || exit 1\n")
    assert plain.test == ("CMD-SHELL", "curl -f http://x || exit 1")
    assert (plain.interval, plain.timeout, plain.retries) == (5 * 10**9, 60 * 10**9, 2)
    assert read('HEALTHCHECK CMD ["a", "b"]\n').test == ("CMD", "a", "b")
    assert read("HEALTHCHECK none\n").test == ("NONE",)

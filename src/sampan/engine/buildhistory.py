"""What an image's plain history tells of the layer that a RUN came to, for images without records of steps.

An image shows the instructions that it was made by, and its layers. A RUN is taken from it where all that
went into it is the same: the base (its history with its times, and its layers), every later instruction that
means something to a program, the layers so far by their digests, and the RUN's own words.

Laws, so that no hit is a wrong one:
- What COPY and ADD put in is known by its layer alone: it is put together here, and goes on only if it came
  out as the same layer.
- A RUN that has something which no history tells (mounts, a script, a network or rights of its own) is never
  taken; nor is one from an image of BuildKit's, whose history leaves them out. Ours and the classic builder's
  tell of all of them.
- Words can mean two things (``ENV A=b C=d``): the image's environment must hold each variable as it is here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sampan.build.evaluate import DEFAULT_PATH
from sampan.images.model import parse_time
from sampan.spec import image as documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sampan.build.evaluate import RunWork
    from sampan.images.model import Image
    from sampan.spec.digest import Digest

_CLASSIC = re.compile(r".*?#\(nop\) +", re.DOTALL)
_MEANINGLESS = frozenset(
    (
        "ARG",
        "CMD",
        "ENTRYPOINT",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "SHELL",
        "STOPSIGNAL",
    )
)
"""Instructions that a later RUN has nothing of but by its own words, which name arguments and shell."""
_CONTENTS = frozenset(("ADD", "COPY"))
_BUILDKIT = "buildkit."
_SECOND = 1_000_000_000  # ns

Entry = tuple[str, bool]
"""An instruction as every builder words it, "" where its layer tells all, and whether it made a layer."""


def is_told(work: RunWork) -> bool:
    """Whether a history tells everything that goes into the step."""
    step = work.step
    plain = step.shell and not work.script and not work.mounts
    return plain and step.network == "default" and not step.insecure


def found(
    image: Image,
    *,
    history: Sequence[Mapping[str, Any]],
    base: tuple[int, int],
    diff_ids: Sequence[Digest],
    environment: Iterable[str],
    words: str,
) -> tuple[Digest | None, int] | None:
    """The chain that the RUN of these ``words`` came to in the image, and when (ns since 1970).

    None if it is not told. ``history`` and ``diff_ids`` are of the files so far, of which ``base`` counts
    those (entries, layers) of the image that they began with; ``environment`` is the configuration's so far.
    """
    entries, layers = base
    theirs, depth = documents.history(image.config), len(diff_ids)
    known = dict(entry.partition("=")[::2] for entry in image.config.config.env)
    known.setdefault("PATH", DEFAULT_PATH)  # what programs have of an image that says nothing
    if (
        (layers and not entries)  # its layers alone do not tell a base
        or image.config.diff_ids[:depth] != tuple(diff_ids)
        or list(map(_dated, theirs[:entries])) != list(map(_dated, history[:entries]))
        or not known.items() >= dict(entry.partition("=")[::2] for entry in environment).items()
        or layers + _made(theirs[entries:]) != len(image.chain)
        or layers + _made(history[entries:]) != depth
    ):
        return None
    ours = [one for entry in history[entries:] if (one := _entry(entry)) is not None]
    later = [(one, entry) for entry in theirs[entries:] if (one := _entry(entry)) is not None]
    if len(later) <= len(ours) or [one for one, _ in later[: len(ours)]] != ours:
        return None
    (told, has_layer), entry = later[len(ours)]
    if told != words:
        return None
    chain = image.chain[: depth + has_layer]
    return (chain[-1] if chain else None), int(parse_time(str(entry.get("created", ""))) * _SECOND)


def _made(history: Iterable[Mapping[str, Any]]) -> int:
    """How many layers the instructions made."""
    return sum(1 for entry in history if not entry.get("empty_layer"))


def _dated(entry: Mapping[str, Any]) -> tuple[float, Any, bool]:
    created = parse_time(str(entry.get("created", "")))
    return created, entry.get("created_by"), bool(entry.get("empty_layer"))


def _entry(entry: Mapping[str, Any]) -> Entry | None:
    """None for an instruction that no program notices."""
    words, layer = str(entry.get("created_by", "")), not entry.get("empty_layer")
    if _CLASSIC.match(words):
        words = _CLASSIC.sub("", words, count=1).rstrip()
        kind = words.partition(" ")[0]
    else:
        kind = words.partition(" ")[0]
        if kind.startswith(("/", "|")) or kind not in _KINDS:  # a program, as the classic builder tells it
            words, kind = f"RUN {words}", "RUN"
    if str(entry.get("comment", "")).startswith(_BUILDKIT) and kind == "RUN":
        return f"{words} # of BuildKit", layer
    if kind in _CONTENTS:
        return "", layer
    if kind in _MEANINGLESS and not layer:
        return None
    return words, layer


_KINDS = _MEANINGLESS | _CONTENTS | frozenset(("ENV", "RUN", "USER", "VOLUME", "WORKDIR"))

"""``--change``: Dockerfile instructions on an image's configuration, as import and commit take them."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.build import instructions
from sampan.build.dockerfile import UnknownInstruction, parse
from sampan.build.evaluate import DEFAULT_SHELL, Draft
from sampan.errors import InvalidArgument
from sampan.spec.image import RunConfig

_ALLOWED = frozenset(
    ("cmd", "entrypoint", "env", "expose", "healthcheck", "label", "onbuild", "stopsignal", "user", "volume")
) | {"workdir"}


def apply(config: RunConfig, changes: Sequence[str]) -> RunConfig:
    """The configuration after the instructions, in order. InvalidArgument for one that cannot be applied."""
    if not changes:
        return config
    try:
        file = parse("\n".join(changes))
    except UnknownInstruction as unknown:
        raise InvalidArgument(f"{unknown.name.lower()} is not a valid change command") from None
    draft = Draft(
        escape=file.escape, given={}, outer={}, config=config, shell=tuple(config.shell or DEFAULT_SHELL)
    )
    for source in file.instructions:
        if source.name not in _ALLOWED:
            raise InvalidArgument(f"{source.name} is not a valid change command")
        draft.take(instructions.read(source))
    return draft.config

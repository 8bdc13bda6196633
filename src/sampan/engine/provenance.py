"""Where an image comes from, as an in-toto statement: what was asked for, what it was made of, when.

It tells what this engine knows and nothing else: the Dockerfile by its digest, the images that stages began
with by theirs, the address of a context that the engine fetched itself. Values of build arguments are told
only with ``max``: they may be nobody's business. Source: SLSA, provenance v1; in-toto, statement v1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sampan import __version__
from sampan.images.model import format_time

if TYPE_CHECKING:
    from sampan.engine.builds import BuildOptions
    from sampan.spec.digest import Digest

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
MODES = ("", "min", "max")


def statement(
    options: BuildOptions,
    image_id: Digest,
    dockerfile: str,
    bases: Mapping[str, Digest],
    times_ns: tuple[int, int],
) -> dict[str, Any]:
    """Of an image whose stages began with ``bases``, by name; ``times_ns`` are when it began and ended."""
    parameters: dict[str, Any] = {
        "dockerfile": {"name": options.dockerfile, "digest": _sha256(dockerfile)},
        "target": options.target,
        "platform": options.platform,
        "labels": dict(options.labels),
        "arguments": dict(options.arguments) if options.provenance == "max" else sorted(options.arguments),
    }
    if options.remote:
        parameters["context"] = {"uri": options.remote.partition("#")[0]}
    dependencies = [
        {"uri": f"pkg:docker/{name}", "digest": {"sha256": image.partition(":")[2]}}
        for name, image in sorted(bases.items())
    ]
    began, ended = times_ns
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": name.familiar, "digest": {"sha256": image_id.partition(":")[2]}}
            for name in options.names
        ]
        or [{"name": image_id, "digest": {"sha256": image_id.partition(":")[2]}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": "https://docs.docker.com/reference/dockerfile/",
                "externalParameters": {name: value for name, value in parameters.items() if value},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": "", "version": {"sampan": __version__}},
                "metadata": {"startedOn": format_time(began), "finishedOn": format_time(ended)},
            },
        },
    }


def _sha256(text: str) -> dict[str, str]:
    return {"sha256": hashlib.sha256(text.encode()).hexdigest()}

"""Reading ``daemon.json``: every key is understood, known to be of no use here, or an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sampan.daemon.directives import AGREED, BY_KEY, REFUSED, WITHOUT_EFFECT
from sampan.daemon.values import from_document, shape, spelled
from sampan.errors import InvalidArgument


def read_file(path: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(values by key, warnings) of a ``daemon.json``. OSError when it cannot be read.

    Raises InvalidArgument, naming the file, for what is not such a document.
    """
    with open(path, "rb") as file:
        raw = file.read()
    try:
        document = json.loads(raw or b"{}")
        if not isinstance(document, dict):
            raise InvalidArgument(f"expected an object of settings, not {shape(document)}")
        return _settle(document)
    except ValueError as error:
        raise InvalidArgument(f"{_refusal(path)}: {error}") from None
    except InvalidArgument as error:
        raise InvalidArgument(f"{_refusal(path)}: {error}") from None


def conflicts(path: str, flags: Mapping[str, Any], file: Mapping[str, Any]) -> None:
    """Raise InvalidArgument, in dockerd's words, when a setting is given in both places."""
    twice = [
        f"{key}: (from flag: {spelled(flags[key])}, from file: {spelled(file[key])})"
        for key in BY_KEY
        if key in flags and key in file
    ]
    if twice:
        raise InvalidArgument(
            f"{_refusal(path)}: the following directives are specified both as a flag and in the "
            f"configuration file: {', '.join(twice)}"
        )


def _refusal(path: str) -> str:
    return f"unable to configure the daemon with file {path}"


def _settle(document: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    unknown = [key for key in document if not (key in BY_KEY or key in WITHOUT_EFFECT or key in REFUSED)]
    if unknown:
        raise InvalidArgument(
            f"the following directives don't match any configuration option: {', '.join(sorted(unknown))}"
        )
    values: dict[str, Any] = {}
    warnings = []
    for key, value in document.items():
        if key in REFUSED:
            asked, reason = REFUSED[key]
            if asked(value):
                raise InvalidArgument(f"{key}: {reason}; remove the key")
        elif key in WITHOUT_EFFECT:
            if value not in AGREED.get(key, ()):
                warnings.append(f"{key} has no effect: {WITHOUT_EFFECT[key]}")
        else:
            values[key] = from_document(BY_KEY[key], value)
    return values, tuple(warnings)

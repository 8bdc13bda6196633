"""Values of --security-opt. A seccomp profile is a file of the client's: its text is sent, compacted."""

from __future__ import annotations

import os

_KNOWN = ("no-new-privileges",)


def security_options(given: list[str]) -> tuple[list[str], bool]:
    """The options to send, and whether ``systempaths=unconfined`` was among them. Raises ValueError."""
    found: list[str] = []
    unconfined = False
    for text in given:
        key, sign, value = text.partition("=")
        if not sign and key not in _KNOWN:
            if ":" not in text:
                raise ValueError(f'Invalid --security-opt: "{text}"')
            key, _, value = text.partition(":")  # the older spelling is passed on as it is
            found.append(text)
            continue
        if key == "seccomp" and value not in ("unconfined", "builtin"):
            text = f"seccomp={_profile(value)}"
        if text == "systempaths=unconfined":
            unconfined = True
            continue
        found.append(text)
    return found, unconfined


def _profile(path: str) -> str:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise ValueError(f"opening seccomp profile ({path}) failed: open {path}: {reason}") from error
    try:
        return json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False)
    except ValueError as error:
        raise ValueError(f"compacting json for seccomp profile ({path}) failed: {error}") from error

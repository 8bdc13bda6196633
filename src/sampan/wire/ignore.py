"""``.dockerignore``: which files of a context are not sent or seen.

Patterns are Go's ``filepath.Match`` with ``**`` for any number of folders and ``!`` for exceptions; the last
that matches a path, or a folder above it, decides. Source: Docker's build reference, ".dockerignore file".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sampan.errors import InvalidArgument


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pattern:
    text: str
    expression: re.Pattern[str]
    exclusion: bool


class Matcher:
    """Patterns in order. InvalidArgument for one that is malformed."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [found for text in patterns if (found := _pattern(text)) is not None]
        self._has_exceptions = any(pattern.exclusion for pattern in self._patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def ignores(self, path: str) -> bool:
        """Whether the file or folder at ``path`` (relative, with slashes) is ignored."""
        ignored = False
        parents = _parents(path)
        for pattern in self._patterns:
            if pattern.exclusion is not ignored:
                continue  # it could not change anything
            if any(pattern.expression.fullmatch(candidate) for candidate in (path, *parents)):
                ignored = not pattern.exclusion
        return ignored

    def skips(self, folder: str) -> bool:
        """Whether nothing below an ignored folder can be wanted, so that it need not be looked into."""
        if not self.ignores(folder):
            return False
        if not self._has_exceptions:
            return True
        prefix = folder + "/"
        return not any(
            pattern.exclusion and (pattern.text.startswith(prefix) or _is_wild(pattern.text))
            for pattern in self._patterns
        )


def read(text: str) -> list[str]:
    """The patterns of an ignore file; lines that begin with # are comments."""
    found = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        exclusion = pattern.startswith("!")
        if exclusion:
            pattern = pattern[1:].strip()
        if pattern:
            pattern = posixpath.normpath(pattern)
            if len(pattern) > 1:
                pattern = pattern.lstrip("/")
        found.append(("!" if exclusion else "") + pattern)
    return found


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def _is_wild(text: str) -> bool:
    return any(character in text.partition("/")[0] for character in "*?[")


def _pattern(text: str) -> _Pattern | None:
    text = text.strip()
    if not text:
        return None
    exclusion = text.startswith("!")
    if exclusion:
        text = text[1:].strip()
        if not text:
            raise InvalidArgument('illegal exclusion pattern: "!"')
    text = posixpath.normpath(text).lstrip("/") or "."
    try:
        return _Pattern(text=text, expression=re.compile(translate(text), re.DOTALL), exclusion=exclusion)
    except re.error:
        raise InvalidArgument(f"syntax error in pattern: {text}") from None


def translate(pattern: str) -> str:
    """A pattern as a regular expression over paths."""
    found: list[str] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            if pattern[at : at + 1] != "*":
                found.append("[^/]*")
                continue
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
                found.append("(?:.*/)?")
            else:
                found.append(".*")
        elif character == "?":
            found.append("[^/]")
        elif character == "\\" and at < len(pattern):
            found.append(re.escape(pattern[at]))
            at += 1
        elif character == "[":
            end = pattern.find("]", at + 1)
            if end < 0:
                raise re.error("unterminated class")
            inside = pattern[at:end].replace("\\", "\\\\")
            found.append(f"[{inside}]")
            at = end + 1
        else:
            found.append(re.escape(character))
    return "".join(found)

"""``.dockerignore``: which files of a context are not sent or seen.

Patterns are Go's ``filepath.Match`` with ``**`` for any number of folders and ``!`` for exceptions; the last
that matches a path, or a folder above it, decides. Source: Docker's build reference, ".dockerignore file".

The client starts with it, so regular expressions are loaded only for patterns that have something to expand.
"""

from __future__ import annotations

import posixpath

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Test = Callable[[str], object]

_SPECIAL = frozenset("*?[\\")
_EXPRESSION = frozenset(".^$+(){}|[]\\*?")


class _Pattern:
    __slots__ = ("exclusion", "fits", "text")

    def __init__(self, text: str, fits: Test, *, exclusion: bool) -> None:
        self.text = text
        self.fits = fits
        self.exclusion = exclusion


class Matcher:
    """Patterns in order. InvalidArgument for one that is malformed."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [found for text in patterns if (found := _pattern(text)) is not None]
        self._has_exceptions = any(pattern.exclusion for pattern in self._patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def ignores(self, path: str) -> bool:
        """Whether the file or folder at ``path`` (relative, with slashes) is ignored."""
        if not self._patterns:
            return False
        ignored = False
        candidates = (path, *_parents(path))
        for pattern in self._patterns:
            if pattern.exclusion is not ignored:
                continue  # it could not change anything
            if any(pattern.fits(candidate) for candidate in candidates):
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
            pattern.exclusion and (pattern.text.startswith(prefix) or _is_wild(pattern.text, folder))
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
    found = []
    at = path.find("/")
    while at >= 0:
        found.append(path[:at])
        at = path.find("/", at + 1)
    return found


def _is_wild(text: str, folder: str) -> bool:
    """Whether a pattern may match something below ``folder``: up to its first wildcard they agree."""
    ends = [at for character in _SPECIAL if (at := text.find(character)) >= 0]
    if not ends:
        return False
    fixed = text[: min(ends)]
    below = folder + "/"
    return below.startswith(fixed) or fixed.startswith(below)


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
    if _SPECIAL.isdisjoint(text):
        return _Pattern(text, text.__eq__, exclusion=exclusion)
    import re

    try:
        return _Pattern(text, re.compile(translate(text), re.DOTALL).fullmatch, exclusion=exclusion)
    except re.error:
        raise InvalidArgument(f"syntax error in pattern: {text}") from None


def translate(pattern: str) -> str:
    """A pattern as a regular expression over paths. ``re.error`` for one that is malformed."""
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
        elif character == "[":
            inside, at = _class(pattern, at)
            found.append(inside)
        else:
            if character == "\\":
                character = pattern[at : at + 1]
                if not character:
                    raise _malformed("a backslash at the end")
                at += 1
            found.append("\\" + character if character in _EXPRESSION else character)
    return "".join(found)


def _class(pattern: str, at: int) -> tuple[str, int]:
    """A class of characters, and where the pattern goes on after it; ``at`` is behind its bracket."""
    end = pattern.find("]", at + 1)
    if end < 0:
        raise _malformed("unterminated class")
    inside = pattern[at:end]
    negated = inside.startswith("^")
    inside = inside.removeprefix("^").replace("[", "\\[").replace("^", "\\^").replace("&", "\\&")
    return f"(?!/)[{'^' if negated else ''}{inside}]", end + 1


def _malformed(why: str) -> Exception:
    import re

    return re.error(why)

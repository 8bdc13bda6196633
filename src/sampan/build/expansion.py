"""Variables and quotes in a Dockerfile's words.

``expand`` gives one word, ``expand_words`` splits at unquoted spaces after expanding, as COPY, ADD and EXPOSE
need. Modifiers: ``${v:-w}``, ``${v-w}``, ``${v:+w}``, ``${v+w}``, ``${v:?w}``, ``${v?w}``,
``${v#p}``, ``${v##p}``, ``${v%p}``, ``${v%%p}``, ``${v/p/w}``, ``${v//p/w}``, with patterns of ``*``, ``?``
and escaped characters. Source: Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sampan.errors import InvalidArgument

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?\-$!]")
_SPACE = frozenset(" \t\r\n")
_DEPTH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """``words`` as split at unquoted spaces, ``text`` unsplit; ``used`` variables, and those ``unset``."""

    text: str
    words: tuple[str, ...]
    used: frozenset[str]
    unset: frozenset[str]


def expand(word: str, values: Mapping[str, str], escape: str = "\\") -> str:
    """The word with variables replaced and quotes removed. InvalidArgument naming what is malformed."""
    return process(word, values, escape).text


def expand_words(word: str, values: Mapping[str, str], escape: str = "\\") -> tuple[str, ...]:
    """The words that it makes: unquoted spaces separate, also those that come out of a variable."""
    return process(word, values, escape).words


def process(
    word: str, values: Mapping[str, str], escape: str = "\\", *, raw_quotes: bool = False
) -> Expanded:
    """All of it. ``raw_quotes`` keeps quotes, as heredocs do."""
    reader = _Reader(word, values, escape, raw_quotes=raw_quotes)
    reader.read("")
    return Expanded(
        text="".join(reader.text),
        words=tuple(reader.finished()),
        used=frozenset(reader.used),
        unset=frozenset(reader.unset),
    )


class _Reader:
    """One pass over a word."""

    def __init__(
        self, word: str, values: Mapping[str, str], escape: str, *, raw_quotes: bool = False, depth: int = 0
    ) -> None:
        self._word = word
        self._values = values
        self._escape = escape
        self._raw = raw_quotes
        self._depth = depth
        self._at = 0
        self.text: list[str] = []
        self._words: list[str] = []
        self._current: list[str] | None = None
        self.used: set[str] = set()
        self.unset: set[str] = set()

    def finished(self) -> list[str]:
        if self._current is not None:
            self._words.append("".join(self._current))
            self._current = None
        return self._words

    def read(self, stop: str) -> None:
        """Read to the end, or to the unquoted character ``stop``, which is taken."""
        while self._at < len(self._word):
            character = self._word[self._at]
            if character == stop:
                self._at += 1
                return
            if character == "'" and not self._raw:
                self._single_quoted()
            elif character == '"' and not self._raw:
                self._double_quoted()
            elif character == "$":
                value = self._variable()
                self.text.append(value)
                self._split(value)
            elif character == self._escape:
                self._escaped()
            else:
                self._at += 1
                self.text.append(character)
                self._split(character)
        if stop:
            raise InvalidArgument(f"syntax error: missing '{stop}' in \"{self._word}\"")

    def _keep(self, text: str) -> None:
        """Quoted text: a word of its own even if it is empty, and never split."""
        self.text.append(text)
        self._current = [*(self._current or []), text]

    def _split(self, text: str) -> None:
        for character in text:
            if character in _SPACE:
                if self._current is not None:
                    self._words.append("".join(self._current))
                    self._current = None
            else:
                self._current = self._current or []
                self._current.append(character)

    def _escaped(self) -> None:
        self._at += 1
        if self._at == len(self._word):
            return  # an escape that protects nothing goes
        kept = self._word[self._at]
        self._at += 1
        if self._raw and kept not in "$" + self._escape:
            kept = self._escape + kept
        self._keep(kept)

    def _single_quoted(self) -> None:
        end = self._word.find("'", self._at + 1)
        if end < 0:
            raise InvalidArgument("unexpected end of statement while looking for matching single-quote")
        self._keep(self._word[self._at + 1 : end])
        self._at = end + 1

    def _double_quoted(self) -> None:
        self._at += 1
        self._keep("")
        while self._at < len(self._word):
            character = self._word[self._at]
            if character == '"':
                self._at += 1
                return
            if character == "$":
                self._keep(self._variable())
                continue
            self._at += 1
            if character == self._escape and self._at < len(self._word):
                following = self._word[self._at]
                if following in ('"', "$", self._escape):
                    self._at += 1
                    character = following
            self._keep(character)
        raise InvalidArgument("unexpected end of statement while looking for matching double-quote")

    # ------------------------------------------------------------------ variables

    def _variable(self) -> str:
        self._at += 1
        if self._word[self._at : self._at + 1] == "{":
            self._at += 1
            return self._braced()
        match = _NAME.match(self._word, self._at)
        if match is None:
            return "$"
        self._at = match.end()
        return self._value(match[0]) or ""

    def _value(self, name: str) -> str | None:
        self.used.add(name)
        value = self._values.get(name)
        if value is None:
            self.unset.add(name)
        return value

    def _braced(self) -> str:
        match = _NAME.match(self._word, self._at)
        if match is None:
            raise InvalidArgument(f'syntax error: bad substitution in "{self._word}"')
        name = match[0]
        self._at = match.end()
        following = self._word[self._at : self._at + 1]
        if following == "}":
            self._at += 1
            return self._value(name) or ""
        if following == ":":
            self._at += 1
            return self._defaulted(name, self._taken(), empty_is_unset=True)
        if following in ("-", "+", "?"):
            return self._defaulted(name, self._taken(), empty_is_unset=False)
        if following in ("#", "%"):
            return self._trimmed(name, self._taken())
        if following == "/":
            return self._replaced(name)
        if not following:
            raise InvalidArgument(f"syntax error: missing '}}' in \"{self._word}\"")
        raise InvalidArgument(f'unsupported modifier ({following}) in substitution in "{self._word}"')

    def _taken(self) -> str:
        character = self._word[self._at : self._at + 1]
        self._at += 1
        return character

    def _inner(self, stop: str) -> str:
        """The text up to the unquoted ``stop``, expanded."""
        if self._depth >= _DEPTH:
            raise InvalidArgument("variables are nested too deeply")
        inner = _Reader(self._word, self._values, self._escape, raw_quotes=self._raw, depth=self._depth + 1)
        inner._at = self._at
        inner.read(stop)
        self._at = inner._at
        self.used |= inner.used
        self.unset |= inner.unset
        return "".join(inner.text)

    def _defaulted(self, name: str, operator: str, *, empty_is_unset: bool) -> str:
        unset_before = set(self.unset)
        word = self._inner("}")
        value = self._value(name)
        given = value is not None and (bool(value) or not empty_is_unset)
        if operator == "+":
            self.unset = unset_before
            return word if given else ""
        if operator == "-":
            self.unset = unset_before
            return (value or "") if given else word
        if operator == "?":
            if given:
                return value or ""
            reason = word or ("not allowed to be empty" if value is not None else "not allowed to be unset")
            raise InvalidArgument(f"{name}: {reason}")
        raise InvalidArgument(f'unsupported modifier (:{operator}) in substitution in "{self._word}"')

    def _trimmed(self, name: str, operator: str) -> str:
        greedy = self._word[self._at : self._at + 1] == operator
        if greedy:
            self._at += 1
        pattern = self._inner("}")
        value = self._value(name) or ""
        if operator == "#":
            match = re.match(_translated(pattern, greedy=greedy), value, re.DOTALL)
            return value[match.end() :] if match else value
        # From the end the shortest match begins last, the longest first.
        expression = re.compile(_translated(pattern, greedy=True), re.DOTALL)
        starts = range(len(value) + 1) if greedy else range(len(value), -1, -1)
        for start in starts:
            if expression.fullmatch(value, start):
                return value[:start]
        return value

    def _replaced(self, name: str) -> str:
        self._at += 1
        everywhere = self._word[self._at : self._at + 1] == "/"
        if everywhere:
            self._at += 1
        pattern = self._inner("/")
        replacement = self._inner("}")
        value = self._value(name) or ""
        if not pattern:
            return value
        return re.sub(
            _translated(pattern, greedy=True),
            lambda _match: replacement,
            value,
            count=0 if everywhere else 1,
            flags=re.DOTALL,
        )


def _translated(pattern: str, *, greedy: bool) -> str:
    """A shell pattern as a regular expression; a backslash protects."""
    found: list[str] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\" and at + 1 < len(pattern):
            found.append(re.escape(pattern[at + 1]))
            at += 2
            continue
        if character == "*":
            found.append(".*" if greedy else ".*?")
        elif character == "?":
            found.append(".")
        else:
            found.append(re.escape(character))
        at += 1
    return "".join(found)

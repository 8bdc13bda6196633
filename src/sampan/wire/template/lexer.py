"""Template text to tokens.

A token is ``(kind, text, position)``; kinds: ``text``, ``open``, ``close``, ``field`` (".Name"), ``dot``,
``variable`` ("$x"), ``name``, ``string``, ``number``, ``rune``, ``bool``, ``nil``, ``pipe``, ``left``,
``right``, ``declare`` (":="), ``assign`` ("="), ``comma``, ``space``, ``character``, ``error``.
"""

from __future__ import annotations

from sampan.wire.template.numbers import scan

TYPE_CHECKING = False
if TYPE_CHECKING:
    Token = tuple[str, str, int]

_BLANK = " \t\r\n"
_SINGLE = {"|": "pipe", "(": "left", ")": "right", ",": "comma", "=": "assign"}
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_CODES = {"x": (16, 2, 0), "u": (16, 4, 0), "U": (16, 8, 0)}
"""(base, digits, 0) of what follows the letter; without one of these letters it is three octal digits."""
_ESCAPES = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "\\": "\\",
    '"': '"',
    "'": "'",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
}


class TemplateError(Exception):
    """The template is malformed, or does not fit its value. ``str()`` begins ``template: :``."""


def failed(line: int, message: str) -> TemplateError:
    """A parse error on ``line``."""
    return TemplateError(f"template: :{line}: {message}")


class Lexer:
    """Cuts one template. ``tokens`` is the whole product."""

    __slots__ = ("_at", "_text", "tokens")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.tokens: list[Token] = []

    def line(self, position: int) -> int:
        """The line of ``position``, from 1."""
        return self._text.count("\n", 0, position) + 1

    def run(self) -> list[Token]:
        """All tokens; where the text makes no sense the last is ``error``, for the parser to reach."""
        try:
            self._run()
        except TemplateError as error:
            self.tokens.append(("error", str(error), self._at))
        return self.tokens

    def _run(self) -> None:
        trim = False
        while True:
            start = self._text.find("{{", self._at)
            literal = self._text[self._at : start] if start >= 0 else self._text[self._at :]
            if trim:
                literal = literal.lstrip(_BLANK)
            if start < 0:
                if literal:
                    self.tokens.append(("text", literal, self._at))
                return
            inside = start + 2
            if self._text[inside : inside + 1] == "-" and self._text[inside + 1 : inside + 2] in tuple(
                _BLANK
            ):
                literal = literal.rstrip(_BLANK)
                inside += 1
            if literal:
                self.tokens.append(("text", literal, self._at))
            self._at = inside
            trim = self._comment(start) if self._is_comment(start) else self._action(start)

    def _is_comment(self, start: int) -> bool:
        """Right after the delimiter, or after a trim marker and its blank."""
        skipped = 0 if self._at == start + 2 else 1
        return self._text.startswith("/*", self._at + skipped)

    def _comment(self, start: int) -> bool:
        end = self._text.find("*/", self._at)
        if end < 0:
            raise failed(self.line(start), "unclosed comment")
        self._at = end + 2
        trim = self._closing()
        if trim is None:
            raise failed(self.line(start), "comment ends before closing delimiter")
        return trim

    def _closing(self) -> bool | None:
        """Step over "}}" or " -}}"; whether it trims; None when it is not here."""
        rest = self._text[self._at :]
        if rest.startswith("}}"):
            self._at += 2
            return False
        stripped = rest.lstrip(_BLANK)
        if stripped.startswith("-}}") and len(stripped) < len(rest):
            self._at += len(rest) - len(stripped) + 3
            return True
        return None

    def _action(self, start: int) -> bool:
        self.tokens.append(("open", "{{", start))
        depth = 0
        while True:
            trim = self._closing()
            if trim is not None:
                if depth:
                    raise failed(self.line(self._at), "unclosed left paren")
                self.tokens.append(("close", "}}", self._at))
                return trim
            if self._at >= len(self._text):
                line, end = self.line(start), self.line(self._at)
                raise failed(end, "unclosed action" + (f" started at :{line}" if line != end else ""))
            character = self._text[self._at]
            if character in _BLANK:
                self._blank()
                continue
            depth += (character == "(") - (character == ")")
            if depth < 0:
                raise failed(self.line(self._at), "unexpected right paren")
            self._token(character)

    def _blank(self) -> None:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] in _BLANK:
            if self._text.startswith("-}}", self._at + 1):
                break
            self._at += 1
        if self._at == start:  # the blank before "-}}" belongs to the marker
            self._at += 0
            return
        self.tokens.append(("space", " ", start))

    def _token(self, character: str) -> None:
        start, following = self._at, self._text[self._at + 1 : self._at + 2]
        if character == ":" and following == "=":
            self._add("declare", 2)
        elif character in _SINGLE:
            self._add(_SINGLE[character], 1)
        elif character == '"' or character == "`":
            self._string(character)
        elif character == "'":
            self._rune()
        elif character == ".":
            if following.isdigit():
                self._number()
                return
            self._at += 1
            word = self._word()
            self._ended(start)
            self.tokens.append(("field", word, start) if word else ("dot", ".", start))
        elif character == "$":
            self._at += 1
            self.tokens.append(("variable", "$" + self._word(), start))
        elif character.isdigit() or character in "+-":
            self._number()
        elif character.isalpha() or character == "_":
            self._name()
        elif character.isascii() and character.isprintable():
            self._add("character", 1)
        else:
            raise failed(
                self.line(start), f"unrecognized character in action: U+{ord(character):04X} '{character}'"
            )

    def _add(self, kind: str, length: int) -> None:
        self.tokens.append((kind, self._text[self._at : self._at + length], self._at))
        self._at += length

    def _word(self) -> str:
        start = self._at
        while self._at < len(self._text) and self._is_word(self._text[self._at]):
            self._at += 1
        return self._text[start : self._at]

    @staticmethod
    def _is_word(character: str) -> bool:
        return character in _WORD or character.isalnum()

    def _name(self) -> None:
        start = self._at
        word = self._word()
        self._ended(start)
        kind = "bool" if word in ("true", "false") else "nil" if word == "nil" else "name"
        self.tokens.append((kind, word, start))

    def _ended(self, start: int) -> None:
        """A word is followed by what cannot be part of one."""
        following = self._text[self._at : self._at + 1]
        if following and following not in _BLANK + ".,|:)(}=":
            raise failed(self.line(start), f"bad character U+{ord(following):04X} '{following}'")

    def _number(self) -> None:
        start = self._at
        self._at, sound = scan(self._text, start)
        following = self._text[self._at : self._at + 1]
        if sound and following and following in "+-":  # 1+2i
            self._at, sound = scan(self._text, self._at)
            sound = sound and self._text[self._at - 1] == "i"
        text = self._text[start : self._at]
        if not sound:
            raise failed(self.line(start), f'bad number syntax: "{text}"')
        self.tokens.append(("number", text, start))

    def _rune(self) -> None:
        start = at = self._at
        while True:
            at += 1
            if at >= len(self._text) or self._text[at] == "\n":
                raise failed(self.line(start), "unterminated character constant")
            if self._text[at] == "\\":
                at += 1
            elif self._text[at] == "'":
                break
        text = self._text[start : at + 1]
        self._at = at + 1
        body = _unescape(text[1:-1], self.line(start), quote="'")
        if not body:
            raise failed(self.line(start), "invalid syntax")
        if len(body) > 1:
            raise failed(self.line(start), f"malformed character constant: {text}")
        self.tokens.append(("rune", body, start))

    def _string(self, quote: str) -> None:
        start = self._at
        at = start + 1
        while True:
            if at >= len(self._text) or (quote == '"' and self._text[at] == "\n"):
                what = "unterminated quoted string" if quote == '"' else "unterminated raw quoted string"
                raise failed(self.line(start), what)
            if quote == '"' and self._text[at] == "\\":
                at += 2
            elif self._text[at] == quote:
                break
            else:
                at += 1
        body = self._text[start + 1 : at]
        self._at = at + 1
        if quote == '"':
            body = _unescape(body, self.line(start))
        self.tokens.append(("string", body, start))


def _unescape(text: str, line: int, quote: str = '"') -> str:
    out: list[str] = []
    at = 0
    while at < len(text):
        if text[at] != "\\":
            out.append(text[at])
            at += 1
            continue
        code = text[at + 1 : at + 2]
        base, length, start = _CODES.get(code, (8, 3, at + 1))
        if code in _ESCAPES and code not in "\"'".replace(quote, ""):
            out.append(_ESCAPES[code])
            at += 2
            continue
        digits = text[start if start else at + 2 :][:length]
        try:
            if len(digits) < length or not digits.isalnum():
                raise ValueError
            out.append(chr(int(digits, base)))
        except (ValueError, OverflowError):
            raise failed(line, "invalid syntax") from None
        at = (start or at + 2) + length
    return "".join(out)

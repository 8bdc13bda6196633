"""Numbers as Go's templates write them. Pure; the rules of text/template/parse."""

from __future__ import annotations

_DIGITS = "0123456789_"
_PREFIXES = {"x": "0123456789abcdefABCDEF_", "o": "01234567_", "b": "01_"}
_OCTAL = "01234567_"
_INTEGER_BITS = 63
_UNSIGNED_BITS = 64


def scan(text: str, at: int) -> tuple[int, bool]:
    """(where the number that begins at ``at`` ends, whether it may end there)."""
    at = _accept(text, at, "+-")
    digits = _DIGITS
    if text[at : at + 1] == "0":
        at += 1
        prefix = text[at : at + 1].lower()
        if prefix in _PREFIXES and prefix:
            digits = _PREFIXES[prefix]
            at += 1
    at = _run(text, at, digits)
    if text[at : at + 1] == ".":
        at = _run(text, at + 1, digits)
    for base, letters in ((_DIGITS, "eE"), (_PREFIXES["x"], "pP")):
        if digits == base and text[at : at + 1] and text[at] in letters:
            at = _run(text, _accept(text, at + 1, "+-"), _DIGITS)
    at = _accept(text, at, "i")
    if text[at : at + 1].isalnum() or text[at : at + 1] == "_":
        return at + 1, False
    return at, True


def _accept(text: str, at: int, letters: str) -> int:
    return at + 1 if text[at : at + 1] and text[at] in letters else at


def _run(text: str, at: int, letters: str) -> int:
    while text[at : at + 1] and text[at] in letters:
        at += 1
    return at


def constant(text: str) -> int | float | complex:
    """The value of a number. Raises ValueError in Go's words."""
    illegal = ValueError(f'illegal number syntax: "{text}"')
    if text.endswith("i"):
        try:
            return complex(0, float(text[:-1]))
        except ValueError:
            raise illegal from None
    found = _integer(text)
    if found is not None:
        return found
    try:
        number = float.fromhex(text) if "p" in text.lower() else float(text)
    except (ValueError, OverflowError):
        raise illegal from None
    if number in (float("inf"), float("-inf")):
        raise illegal
    if not any(letter in ".eEpP" for letter in text):
        raise ValueError(f'integer overflow: "{text}"')
    return number


def _integer(text: str) -> int | None:
    """An integer of at most 64 bits, else None; a leading zero means octal."""
    digits = text.lstrip("+-")
    try:
        octal = len(digits) > 1 and digits[0] == "0" and digits[1] in _OCTAL
        value = int(digits.replace("_", ""), 8) if octal else int(digits, 0)
    except ValueError:
        return None
    value = -value if text.startswith("-") else value
    return value if -(1 << _INTEGER_BITS) <= value < 1 << _UNSIGNED_BITS else None


def fits(value: int) -> bool:
    """Whether Go's int holds the value."""
    return value < 1 << _INTEGER_BITS

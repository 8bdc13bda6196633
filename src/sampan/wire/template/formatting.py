"""Go's Sprintf for what templates print: verbs, flags, widths, indexes, and its words for mistakes."""

from __future__ import annotations

from sampan.wire.template.values import Number, Struct, general, go_type, kind, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_FLAGS = frozenset("+-# 0")


class _Printer:
    """One call: the template, the arguments, and which of them is next."""

    def __init__(self, template: str, values: Sequence[Any]) -> None:
        self._template = template
        self._values = values
        self._next = 0
        self._reordered = False

    def run(self) -> str:
        out: list[str] = []
        template, at = self._template, 0
        while at < len(template):
            mark = template.find("%", at)
            mark = len(template) if mark < 0 else mark
            out.append(template[at:mark])
            if mark == len(template):
                break
            at, text = self._directive(mark + 1)
            out.append(text)
        rest = self._values[self._next :]
        if rest and not self._reordered:
            extra = ", ".join(map(_described, rest))
            out.append(f"%!(EXTRA {extra})")
        return "".join(out)

    def _directive(self, at: int) -> tuple[int, str]:
        template = self._template
        start = at
        while at < len(template) and template[at] in _FLAGS:
            at += 1
        flags = set(template[start:at])
        at = self._index(at)
        at, width = self._number(at)
        if width is not None and width < 0:
            flags.add("-")
            width = -width
        precision: int | None = None
        if template[at : at + 1] == ".":
            at, precision = self._number(self._index(at + 1))
            precision = precision or 0
        at = self._index(at)
        if at >= len(template):
            return at, "%!(NOVERB)"
        verb = template[at]
        if verb == "%":
            return at + 1, "%"
        if self._next >= len(self._values):
            return at + 1, f"%!{verb}({'BADINDEX' if self._reordered else 'MISSING'})"
        value = self._values[self._next]
        self._next += 1
        return at + 1, formatted(flags, width, precision, verb, value)

    def _index(self, at: int) -> int:
        """Step over ``[n]``, which chooses the next argument."""
        if self._template[at : at + 1] != "[":
            return at
        end = self._template.find("]", at)
        number = self._template[at + 1 : end] if end > 0 else ""
        if not number.isdecimal():
            return at
        self._next = int(number) - 1
        self._reordered = True
        return end + 1

    def _number(self, at: int) -> tuple[int, int | None]:
        """A width or precision: digits, or ``*`` for the next argument."""
        template = self._template
        if template[at : at + 1] == "*":
            value = self._values[self._next] if self._next < len(self._values) else 0
            self._next += 1
            return at + 1, value if isinstance(value, int) else 0
        start = at
        while template[at : at + 1].isdecimal():
            at += 1
        return at, int(template[start:at]) if at > start else None


def sprintf(template: str, values: Sequence[Any]) -> str:
    """``values`` by ``template``; a mistake is part of the text, as in Go."""
    return _Printer(template, values).run()


def formatted(flags: set[str], width: int | None, precision: int | None, verb: str, value: Any) -> str:
    """One value by one verb."""
    if verb == "T":
        text: str | None = go_type(value)
    elif verb in "vsqxXd" and isinstance(value, (list, dict)) and verb != "v":
        return _members(flags, width, precision, verb, value)
    else:
        text = _plain(flags, precision, verb, value)
    if text is None:
        return f"%!{verb}({_described(value)})"
    return _padded(text, flags, width, number=_is_number(value) and verb not in "cqUT")


def _described(value: Any) -> str:
    if value is None:
        return "<nil>"
    return f"{'int' if isinstance(value, Number) else kind(value)}={shown(value)}"


def _members(flags: set[str], width: int | None, precision: int | None, verb: str, value: Any) -> str:
    """A list, struct or map with the verb applied to each member."""

    def one(member: Any) -> str:
        return formatted(flags, width, precision, verb, member)

    if isinstance(value, list):
        return "[" + " ".join(map(one, value)) + "]"
    if isinstance(value, Struct):
        return "{" + " ".join(map(one, value.values())) + "}"
    return "map[" + " ".join(f"{one(key)}:{one(value[key])}" for key in sorted(value)) + "]"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _padded(text: str, flags: set[str], width: int | None, *, number: bool) -> str:
    if not width or len(text) >= width:
        return text
    if "-" in flags:
        return text.ljust(width)
    if "0" not in flags:
        return text.rjust(width)
    sign = text[0] if number and text[:1] in ("+", "-", " ") else ""
    return sign + text[len(sign) :].rjust(width - len(sign), "0")


def _plain(flags: set[str], precision: int | None, verb: str, value: Any) -> str | None:
    """The value without padding; None for a verb that it does not have."""
    if isinstance(value, bool):
        return shown(value) if verb in "tv" else None
    if isinstance(value, int):
        return _integer(flags, verb, int(value))
    if isinstance(value, float):
        return _float(flags, precision, verb, value)
    if isinstance(value, str):
        return _text(flags, precision, verb, value)
    return shown(value) if verb == "v" else None


def _integer(flags: set[str], verb: str, value: int) -> str | None:
    if verb == "c":
        return chr(value)
    if verb == "q":
        return f"'{chr(value)}'"
    if verb == "U":
        return f"U+{value:04X}"
    bases = {"d": "d", "v": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}
    if verb not in bases:
        return None
    digits = format(abs(value), bases[verb])
    if verb == "O" or "#" in flags:
        digits = {"O": "0o", "x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") + digits
    return _sign(flags, value < 0, verb) + digits


def _float(flags: set[str], precision: int | None, verb: str, value: float) -> str | None:
    if verb in "vgG" and precision is None:
        digits = general(abs(value)).upper() if verb == "G" else general(abs(value))
    elif verb in "eEfFgGv":
        digits = format(abs(value), f".{6 if precision is None else precision}{'g' if verb == 'v' else verb}")
    else:
        return None
    return _sign(flags, value < 0, verb) + digits


def _sign(flags: set[str], negative: bool, verb: str) -> str:
    if negative:
        return "-"
    if "+" in flags and verb != "v":
        return "+"
    return " " if " " in flags else ""


def _text(flags: set[str], precision: int | None, verb: str, value: str) -> str | None:
    if verb in "xX":
        data = value.encode("utf-8", "surrogateescape").hex()
        return data.upper() if verb == "X" else data
    if verb not in "svq":
        return None
    if precision is not None:
        value = value[:precision]
    if verb == "q" or (verb == "v" and "#" in flags):
        from sampan.wire.quoting import quoted

        return quoted(value)
    return value

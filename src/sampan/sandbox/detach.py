"""Detach keys: the key sequence by which a client leaves a terminal without ending what runs in it."""

from __future__ import annotations

from sampan.errors import InvalidArgument

DEFAULT = "ctrl-p,ctrl-q"
_CONTROL = {f"ctrl-{chr(letter)}": letter - 96 for letter in range(ord("a"), ord("z") + 1)} | {
    "ctrl-@": 0,
    "ctrl-[": 27,
    "ctrl-\\": 28,
    "ctrl-]": 29,
    "ctrl-^": 30,
    "ctrl-_": 31,
}


def parse(keys: str) -> bytes:
    """The bytes of a sequence such as ``ctrl-p,ctrl-q`` or ``ctrl-x,x``. Raises InvalidArgument."""
    sequence = bytearray()
    for key in keys.split(","):
        if len(key) == 1 and ord(key) < 128:
            sequence.append(ord(key))
        elif key.lower() in _CONTROL:
            sequence.append(_CONTROL[key.lower()])
        else:
            raise InvalidArgument(f"invalid detach keys ({keys}): Unknown character: '{key}'")
    return bytes(sequence)


class DetachKeys:
    """Finds the sequence in a stream of input, also across reads; a part of it is held back until decided."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what to pass on, whether the sequence is complete); input after the sequence is dropped."""
        passed = bytearray()
        for byte in data:
            if byte != self._sequence[self._matched]:
                passed += self._sequence[: self._matched]
                self._matched = 0
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    return bytes(passed), True
            else:
                passed.append(byte)
        return bytes(passed), False

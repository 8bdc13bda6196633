"""The writing half of the json-file log format: output in, ``{"log": …, "stream": …, "time": …}`` out.

Apart from the reading half (``jsonlog``) because a keeper loads it, which shall stay small. It is quick
because whole batches are handled by single calls: text that needs no escaping is found by one ``translate``,
and its newlines become the borders of records by one ``replace``.
"""

from __future__ import annotations

from json.encoder import encode_basestring

STDOUT, STDERR = 1, 2

HEAD = b'{"log":"'
NAMES = {STDOUT: "stdout", STDERR: "stderr"}

_QUOTE, _BACKSLASH = b'"\\'
_PLAIN = bytes({*range(32, 128)} - {_QUOTE, _BACKSLASH}) + b"\n"
_BEYOND_ASCII = bytes(range(128, 256))
_ESCAPES = {n: encode_basestring(chr(n))[1:-1].encode() for n in (*range(32), _QUOTE, _BACKSLASH)}
_DENSE = 8  # one character in so many has to be escaped: then each is looked at


def tail(stream: int, time: str, attributes: str = "") -> bytes:
    """What follows the text of a record; ``time`` is RFC 3339 with nanoseconds, in UTC.

    ``attributes`` are an encoded JSON object, or nothing.
    """
    given = f'"attrs":{attributes},' if attributes else ""
    return f'","stream":"{NAMES[stream]}",{given}"time":"{time}"}}\n'.encode()


def lines(data: bytes, end: bytes) -> bytes:
    """A record for each line of ``data``, which ends with a newline; ``end`` is their common ``tail``."""
    text = escaped(data[:-1])
    return b"".join((HEAD, text.replace(b"\n", b"\\n" + end + HEAD), b"\\n", end))


def part(text: bytes, end: bytes) -> bytes:
    """The record of a piece of a line, which is ``escaped`` already."""
    return b"".join((HEAD, text, end))


def record(stream: int, time: str, data: bytes, attributes: str = "") -> bytes:
    """One line for ``data``."""
    text = escaped(data).replace(b"\n", b"\\n")
    return part(text, tail(stream, time, attributes))


def escaped(data: bytes) -> bytes:
    """Output as the inside of a JSON string, but for its newlines. What is no UTF-8 is replaced."""
    odd = data.translate(None, _PLAIN)
    if not odd:
        return data
    if not odd.isascii():
        data = data.decode("utf-8", "replace").encode()
        odd = odd.translate(None, _BEYOND_ASCII)
    if len(odd) * _DENSE > len(data):
        return b"\n".join(encode_basestring(line.decode())[1:-1].encode() for line in data.split(b"\n"))
    # The backslash first: the others' escapes have one.
    for number in sorted(set(odd), reverse=True):
        data = data.replace(bytes((number,)), _ESCAPES[number])
    return data

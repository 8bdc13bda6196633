"""Many records of a json-file log at once: blocks of whole lines in, output out.

Pure. A log is read far oftener as a whole than searched, and nearly all of it has the shape that a keeper
writes. So what lies between two texts (the end of one record and the head of the next) is cut out of a whole
block by one substitution, for a hundredth of what parsing every record takes. Law: a block in which anything
is of another shape is read record by record by ``jsonlog``, so that both ways give the same output.
"""

from __future__ import annotations

import re
import time
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed does not know it

from sampan.wire import jsonlog
from sampan.wire.logrecords import HEAD, NAMES, STDERR, STDOUT

Text = tuple[int, bytes]
"""(stream, output): what one or more records say."""

Entry = tuple[int, bytes, bytes]
"""(stream, time, output) of one record; the time as ``STAMP`` bytes of RFC 3339 in UTC, which sort."""

STAMP = len("2026-11-24T05:58:53.123456789Z")

_STREAM = b'","stream":"'
_NUMBERS = {name.encode(): number for number, name in NAMES.items()}
_NAME = len(NAMES[STDOUT])  # both are equally long
_OTHER = {STDOUT: _STREAM + b'stderr"', STDERR: _STREAM + b'stdout"'}


def _patterns(before: str, time: str, after: str) -> dict[int, re.Pattern[bytes]]:
    """What lies between the texts of two records, for each stream."""
    rest = r'","stream":"%s",(?:"attrs":\{[^\n]*\},)?"time":"' + time + r'"\}\n'
    return {n: re.compile((before + rest % name + after).encode()) for n, name in NAMES.items()}


_HEAD = r'\{"log":"'
# Nearly all times have the same length, which is matched in half the time.
_LINE_BORDER = _patterns(r"\\n", f".{{{STAMP}}}", _HEAD)
_PART_BORDER = _patterns("", r'[^"\n]*', _HEAD)
_END = _patterns("", r'[^"\n]*', "")
_TIME = b',"time":"'
_AFTER = STAMP + len(b'"}')
_RESTLESS, _SHORT = 8, 2048


def texts(block: bytes) -> list[Text]:
    """The output of a block, in runs of one stream. Lines that are no records are passed over."""
    found: list[Text] = []
    place = 0
    while place < len(block):
        if len(found) > _RESTLESS and place < len(found) * _SHORT:  # it goes to and fro
            found.extend((entry[0], entry[2]) for entry in entries(block[place:]))
            break
        at = block.find(_STREAM, place)
        stream = _NUMBERS.get(block[at + len(_STREAM) : at + len(_STREAM) + _NAME], STDOUT)
        change = block.find(_OTHER[stream], place)
        end = len(block) if change < 0 else block.rfind(b"\n", place, change) + 1
        if end <= place:
            end = (block.find(b"\n", place) + 1) or len(block)
        run = block[place:end]
        text = _run(run, stream)
        if text is not None:
            found.append((stream, text))
        else:
            found.extend((entry[0], entry[2]) for entry in entries(run))
        place = end
    return found


def _run(run: bytes, stream: int) -> bytes | None:
    """The output of records of one stream; None when they are not all of our own shape."""
    # Here the backslash before the n may be an escaped one.
    if not run.startswith(HEAD) or b'\\\\n"' in run:
        return None
    text = _LINE_BORDER[stream].sub(b"\n", run)
    end = text.find(_STREAM)
    if text.find(_STREAM, end + 1) >= 0:
        text = _PART_BORDER[stream].sub(b"", text)
        end = text.find(_STREAM)
    if end < 0 or not _END[stream].fullmatch(text, end):
        return None
    last = b""
    if text.endswith(b"\\n", 0, end):
        end, last = end - 2, b"\n"
    return _unescaped(text[len(HEAD) : end], last)


def _unescaped(text: bytes, last: bytes) -> bytes | None:
    if b"\\" not in text:
        return None if b'"' in text else text + last
    quoted = text.decode("utf-8", "replace") + '"'
    try:
        said, end = scanstring(quoted, 0, False)
    except ValueError:
        return None
    output: bytes = said.encode("utf-8", "replace")
    return output + last if end == len(quoted) else None


def entries(block: bytes) -> list[Entry]:
    """The records of a block, one by one. Lines that are no records are passed over."""
    found = []
    for line in block.split(b"\n"):
        if line.startswith(HEAD):
            text, _, rest = line[len(HEAD) :].partition(_STREAM)
            stream = _NUMBERS.get(rest[:_NAME])
            if stream and rest[-_AFTER - len(_TIME) : -_AFTER] == _TIME and rest.endswith(b'Z"}'):
                if text.endswith(b"\\n") and text.find(b"\\") == len(text) - 2:
                    output: bytes | None = text[:-2] + b"\n"
                else:
                    output = _unescaped(text, b"")
                if output is not None:
                    found.append((stream, rest[-_AFTER:-2], output))
                    continue
        if line and (entry := _parsed(line)) is not None:
            found.append(entry)
    return found


def _parsed(line: bytes) -> Entry | None:
    entry = jsonlog.parse(line.decode("utf-8", "replace"))
    return None if entry is None else (entry[0], stamp(entry[1]), entry[2])


def stamp(nanoseconds: int) -> bytes:
    """A moment since the epoch as an entry's time."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z".encode()

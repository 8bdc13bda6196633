"""The json-file log format: one JSON object a line, ``{"log": …, "stream": …, "time": …}``.

Pure. Reading is strict about lines and lenient about their members: what Docker adds (``attrs``) is passed
over, a line that is no record (torn by a power loss) is None. Lines of our own form take a short way.
"""

from __future__ import annotations

import calendar
import json
import re
from functools import lru_cache
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed does not know it

from sampan.wire.logrecords import NAMES

_HEAD = '{"log":"'
_STREAMS = {name: number for number, name in NAMES.items()}
_TAILS = {f',"stream":"{name}","time":"': number for name, number in _STREAMS.items()}
_TAIL = len(next(iter(_TAILS)))  # both are equally long
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(?:Z|([+-])(\d\d):(\d\d))")

Entry = tuple[int, int, bytes]
"""(stream, nanoseconds since the epoch, output)"""


def parse(line: str) -> Entry | None:
    """One line, with or without its newline; None when it is not a record."""
    if line.startswith(_HEAD):
        try:
            text, end = scanstring(line, len(_HEAD), False)
        except ValueError:
            return None
        stream = _TAILS.get(line[end : end + _TAIL])
        if stream is not None:
            stamp, mark, rest = line[end + _TAIL :].partition('"')
            if mark and rest.startswith("}"):
                time_ns = parse_time(stamp)
                return None if time_ns is None else (stream, time_ns, _encode(text))
    return _parse_slowly(line)


def _parse_slowly(line: str) -> Entry | None:
    try:
        document = json.loads(line, strict=False)
        stream = _STREAMS[document["stream"]]
        time_ns = parse_time(document["time"])
        text = document["log"]
    except (ValueError, KeyError, TypeError):
        return None
    if time_ns is None or not isinstance(text, str):
        return None
    return stream, time_ns, _encode(text)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def parse_time(text: str) -> int | None:
    """RFC 3339 as nanoseconds since the epoch; None for what is not."""
    # Nearly every line has nine digits and Z, and shares its second with its neighbours.
    if len(text) == 30 and text[19] == "." and text[29] == "Z" and text[20:29].isdecimal():
        seconds = _seconds(text[:19])
        return None if seconds is None else seconds * 1_000_000_000 + int(text[20:29])
    matched = _TIME.fullmatch(text)
    seconds = _seconds(text[:19]) if matched else None
    if matched is None or seconds is None:
        return None
    _, _, _, fraction, sign, hours, minutes = matched.groups()
    if sign:
        offset = int(hours) * 3600 + int(minutes) * 60
        seconds += -offset if sign == "+" else offset
    return seconds * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))


@lru_cache(maxsize=256)
def _seconds(text: str) -> int | None:
    """``YYYY-MM-DDTHH:MM:SS`` in UTC as seconds since the epoch."""
    try:
        date, _, clock = text.partition("T")
        year, month, day = map(int, date.split("-"))
        hour, minute, second = map(int, clock.split(":"))
    except ValueError:
        return None
    in_range = 1 <= year <= 9999 and 1 <= month <= 12 and 1 <= day <= 31
    if not (in_range and hour < 24 and minute < 60 and second < 61):
        return None
    return calendar.timegm((year, month, day, hour, minute, second))

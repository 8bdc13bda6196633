"""Options of the local driver, read; and the marks of who uses what."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.errors import InvalidArgument
from sampan.linux import mount as m
from sampan.volumes.mounting import Marks, check_options, parse


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"foo": "1"}, 'invalid option: "foo"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "tmpfs"}, 'missing required option: "type"'),
        ({"o": "size=1m"}, 'missing required option: "device"'),
        ({"size": "1g"}, "quota size requested but no quota support"),
        ({"type": "none", "device": "/a\0b", "o": "bind"}, "invalid device: '/a\\x00b'"),
    ],
)
def test_refusals_are_dockers(options: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check_options("vol", options)
    assert str(refused.value) == f"create vol: {said}"


def test_options_that_pass() -> None:
    check_options("vol", {"type": "", "device": "x"})
    check_options("vol", {"type": "nfs", "device": ":/x", "o": ""})


@pytest.mark.parametrize(
    ("words", "flags", "propagation", "data"),
    [
        ("", 0, 0, ""),
        ("bind", m.MS_BIND, 0, ""),
        ("rbind,ro,defaults", m.MS_BIND | m.MS_REC | m.MS_RDONLY, 0, ""),
        ("ro,rw", 0, 0, ""),
        ("nosuid,suid,nodev,size=1m,uid=5", m.MS_NODEV, 0, "size=1m,uid=5"),
        ("bind,rshared", m.MS_BIND, m.MS_SHARED | m.MS_REC, ""),
        ("private", 0, m.MS_PRIVATE, ""),
        ("r,rx", 0, 0, "r,rx"),
    ],
)
def test_words(words: str, flags: int, propagation: int, data: str) -> None:
    asked = parse({"type": "t", "device": "d", "o": words})
    assert (asked.type, asked.device) == ("t", "d")
    assert (asked.flags, asked.propagation, asked.data) == (flags, propagation, data)


def test_marks(tmp_path: Path) -> None:
    marks = Marks(str(tmp_path / "marks"))
    assert marks.all() == {}
    for pair in (("vol", "a"), ("vol", "b"), ("other", "a"), ("vol", "a")):
        marks.add(*pair)
    assert marks.all() == {"vol": {"a", "b"}, "other": {"a"}}
    marks.remove("other", "a")
    marks.remove("other", "a")
    marks.remove("vol", "b")
    assert Marks(str(tmp_path / "marks")).all() == {"vol": {"a"}}

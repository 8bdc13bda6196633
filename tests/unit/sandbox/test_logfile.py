from __future__ import annotations

import json
from pathlib import Path

from sampan.sandbox.logfile import LogWriter
from sampan.sandbox.messages import LogFile


def records(path: Path) -> list[tuple[str, str]]:
    return [(r["stream"], r["log"]) for r in map(json.loads, path.read_text().splitlines())]


def test_lines_are_records_and_streams_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LogWriter(LogFile(path=str(path)))
    writer.write(1, b"one\ntw")
    writer.write(2, b"err\n")
    writer.write(1, b"o\r\npart")
    assert list(writer.pending()) == [(1, b"part")]
    writer.close()
    assert records(path) == [
        ("stdout", "one\n"),
        ("stderr", "err\n"),
        ("stdout", "two\r\n"),
        ("stdout", "part"),
    ]


def test_long_lines_are_split_at_16_kib_and_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LogWriter(LogFile(path=str(path)))
    writer.write(1, b"x" * 20000 + b'\n\xff"\\\n')
    writer.close()
    assert records(path) == [
        ("stdout", "x" * 16384),
        ("stdout", "x" * 3616 + "\n"),
        ("stdout", '\ufffd"\\\n'),
    ]


def test_rotation_keeps_as_many_files_as_it_may_and_loses_no_line_of_them(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LogWriter(LogFile(path=str(path), max_size=1000, max_files=3))
    for number in range(100):
        writer.write(1, f"line {number}\n".encode())
    assert writer.files() == [f"{path}.2", f"{path}.1", str(path)]
    writer.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    kept = [text for file in writer.files() for _, text in records(Path(file))]
    assert kept == [f"line {number}\n" for number in range(100 - len(kept), 100)]
    assert all(Path(file).stat().st_size <= 1000 for file in writer.files())


def test_one_file_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LogWriter(LogFile(path=str(path), max_size=200, max_files=1))
    for number in range(10):
        writer.write(1, f"line {number}\n".encode())
    writer.close()
    assert [p.name for p in tmp_path.iterdir()] == ["log"]
    assert records(path)[-1] == ("stdout", "line 9\n")

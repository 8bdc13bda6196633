from __future__ import annotations

from pathlib import Path

import pytest
from tests.reference import REFERENCE

from sampan.build.dockerfile import DockerfileError, Instruction, parse
from sampan.wire.quoting import quoted

FILES = REFERENCE / "dockerfiles"


def _shown(found: Instruction) -> str:
    """The S-expression in which the recorded results are written."""
    parts = [found.name]
    if found.flags:
        parts.append("[" + " ".join(map(quoted, found.flags)) + "]")
    if found.inner is not None:
        parts.append(_shown(found.inner))
    else:
        parts += map(quoted, found.words)
    return "(" + " ".join(parts) + ")"


@pytest.mark.skipif(not FILES.exists(), reason="the reference data is not here")
@pytest.mark.parametrize("name", sorted(path.name for path in FILES.iterdir()) if FILES.exists() else [])
def test_a_file_comes_apart_as_recorded(name: str) -> None:
    folder: Path = FILES / name
    found = parse((folder / "Dockerfile").read_text())
    assert "\n".join(map(_shown, found.instructions)) == (folder / "result").read_text().rstrip("\n")


def test_lines_are_counted() -> None:
    found = parse("# c\n\nFROM a\nRUN x \\\n  # comment\n\n  y\nCMD z\n")
    assert [(one.name, one.first, one.last) for one in found.instructions] == [
        ("from", 3, 3),
        ("run", 4, 7),
        ("cmd", 8, 8),
    ]
    assert found.instructions[1].words == ("x   y",)
    assert found.warnings == ("Empty continuation line found in: RUN x   y",)


def test_heredocs() -> None:
    text = (
        "FROM a\nRUN <<EOF\necho $x\n  b\nEOF\n"
        'COPY <<-"A" <<B /d/\n\tx\n\tA\ny\nB\n'
        "RUN cat <<< x\nRUN 3<<X cat <<'Y Z'\n1\nX\n2\nY Z\n"
    )
    run, copy, plain, two = parse(text).instructions[1:]
    assert [(one.name, one.content, one.expand) for one in run.heredocs] == [("EOF", "echo $x\n  b\n", True)]
    assert (run.first, run.last) == (2, 5)
    assert [(one.name, one.content, one.expand, one.chomp) for one in copy.heredocs] == [
        ("A", "x\n", False, True),
        ("B", "y\n", True, False),
    ]
    assert plain.heredocs == ()
    assert [(one.name, one.content, one.descriptor) for one in two.heredocs] == [
        ("X", "1\n", 3),
        ("Y Z", "2\n", 0),
    ]


def test_directives() -> None:
    found = parse("# syntax=docker/dockerfile:1\n# Escape = `\n# check=skip=all\nFROM a\nRUN a `\n b\n")
    assert found.directives == {"syntax": "docker/dockerfile:1", "escape": "`", "check": "skip=all"}
    assert found.instructions[1].words == ("a  b",)
    # After anything else they are comments.
    assert parse("# x\n# escape=`\nFROM a\n").escape == "\\"


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("", "file with no instructions", 0),
        ("# only\n", "file with no instructions", 0),
        ("FROM a\n\nRUNN x\n", "unknown instruction: RUNN (did you mean run?)", 3),
        ("FROM a\nXYZZY\n", "unknown instruction: XYZZY", 2),
        ("FROM a\nENV x\n", "ENV must have two arguments", 2),
        ("FROM a\nENV a=b c\n", 'Syntax error - can\'t find = in "c". Must be of the form: name=value', 2),
        ("FROM a\nCMD [1]\n", "when using JSON array syntax, arrays must be comprised of strings only", 2),
        ("# escape=x\nFROM a\n", "invalid ESCAPE 'x'. Must be ` or \\", 1),
        ("# escape=`\n# escape=`\nFROM a\n", "only one escape parser directive can be used", 2),
        ("FROM a\nRUN <<E\nx\n", "unterminated heredoc", 2),
        ("FROM a\nRUN " + "x" * (1 << 20), "the Dockerfile is larger than 1048576 bytes", 0),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str, line: int) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    assert str(caught.value) == message
    assert caught.value.first == line

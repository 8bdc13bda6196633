"""Why a step ran: one reason a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.engine.buildexplain import KEPT, Explanations, Inputs, reasons


def inputs(**more: object) -> Inputs:
    members = {"stage": "0", "number": 1, "words": "RUN x", "parent": "p", "values": {"A": "1"}}
    return Inputs(**{**members, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (inputs(), [], ["no build of this stage is known to compare with"]),
        (inputs(), [inputs(stage="other")], ["no build of this stage is known to compare with"]),
        (inputs(words="RUN y"), [inputs()], ["the instruction is new; in its place was: RUN x"]),
        (inputs(words="RUN y", number=2), [inputs()], ["the instruction is new"]),
        (inputs(parent="q"), [inputs()], ["parent: the step before it came to other files"]),
        (inputs(parent="q", number=0), [inputs(number=0)], ["parent: another base"]),
        (inputs(values={"A": "2"}), [inputs()], ["A: another value"]),
        (inputs(values={"A": "1", "B": "1"}), [inputs()], ["B: another value"]),
        (
            inputs(files={"same": "1", "a": "1", "n": "1"}),
            [inputs(files={"same": "1", "a": "2", "g": "1"})],
            ["file a: changed", "file g: gone", "file n: new"],
        ),
        (
            inputs(files={str(number): "2" for number in range(8)}),
            [inputs(files={str(number): "1" for number in range(8)})],
            [*(f"file {number}: changed" for number in range(5)), "and 3 more files"],
        ),
        (inputs(other={"user": "1"}), [inputs(other={"user": "0"})], ["user: changed"]),
        (inputs(), [inputs()], ["it was built before, but the cache does not have it any more"]),
        (inputs(number=9), [inputs(number=1, parent="q"), inputs(number=8)], None),
    ],
)
def test_reasons(now: Inputs, before: list[Inputs], expected: list[str] | None) -> None:
    lost = ["it was built before, but the cache does not have it any more"]
    assert reasons(now, before, no_cache=False) == (expected or lost)


def test_no_cache_is_reason_enough() -> None:
    assert reasons(inputs(), [inputs()], no_cache=True) == ["--no-cache was given"]


def test_inputs_are_kept_for_a_later_daemon_and_not_for_ever(tmp_path: Path) -> None:
    root = tmp_path / "inputs"
    kept = Explanations(str(root))
    assert kept.before("x") == []
    kept.keep("x", [inputs()])
    assert kept.before("x") == Explanations(str(root)).before("x") == [inputs()]
    (path,) = root.iterdir()
    path.write_bytes(b"\xc1 damaged")
    assert Explanations(str(root)).before("x") == []
    for number in range(KEPT + 5):
        kept.keep(str(number), [inputs()])
    assert len(list(root.iterdir())) == KEPT

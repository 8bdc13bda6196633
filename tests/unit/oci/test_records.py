"""The stand-in for dataclasses does what the sandbox uses of the real ones."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from sampan.oci import records

MODULES = "launch, cgroups, seccomp, joining"


@records.dataclass(frozen=True, slots=True, kw_only=True)
class _Plain:
    name: str
    count: int = 3
    parts: list[str] = records._Field(default_factory=list)  # type: ignore[assignment]


Plain: Any = _Plain


def test_values_have_defaults_and_compare() -> None:
    one = Plain(name="a")
    assert (one.name, one.count, one.parts) == ("a", 3, [])
    assert one == Plain(name="a", count=3)
    assert one != Plain(name="b")
    assert one.parts is not Plain(name="a").parts
    assert records.replace(one, count=4).count == 4


def test_what_is_missing_or_unknown_is_refused() -> None:
    with pytest.raises(TypeError, match="needs name"):
        Plain()
    with pytest.raises(TypeError, match="has no size"):
        Plain(name="a", size=1)


def test_names_of_typing_are_called_subscripted_and_decorate() -> None:
    anything: Any = records._Anything
    assert isinstance(anything("T", bound=int), records._Anything)
    assert anything[int] is records._Anything
    assert anything(len) is len


def test_the_sandbox_loads_with_it() -> None:
    code = (
        "from sampan.oci.records import stand_in; stand_in()\n"
        f"from sampan.sandbox import {MODULES}\n"
        "from sampan.oci import creating, executing, commands, limits, features\n"
        "import sys; assert 'inspect' not in sys.modules\n"
        "from sampan.sandbox.messages import RootDirectory; print(RootDirectory(path='/x').path)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("/x\n", "")

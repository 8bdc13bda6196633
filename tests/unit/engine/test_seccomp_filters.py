from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from sampan.engine.seccomp import Filters
from sampan.spec.runtime import DEFAULT_CAPABILITIES


def test_containers_that_start_together_share_one_compilation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str | None] = []
    real = Filters._compile

    def count(self: Filters, profile: str | None, capabilities: frozenset[str]) -> str:
        compiled.append(profile)
        return real(self, profile, capabilities)

    monkeypatch.setattr(Filters, "_compile", count)

    async def start_together() -> list[str]:
        filters = Filters(str(tmp_path))
        wanted = frozenset(DEFAULT_CAPABILITIES)
        return list(await asyncio.gather(*(filters.path(None, wanted) for _ in range(8))))

    paths = asyncio.run(start_together())
    assert len(set(paths)) == 1
    assert compiled == [None]

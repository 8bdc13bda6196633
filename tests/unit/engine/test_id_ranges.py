"""Ids of two engines that lease, join, give back, and die, in any order: nobody ever has what another has."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sampan.daemon.instance import lock
from sampan.engine.idblocks import IdBlocks
from sampan.engine.idranges import IdRanges
from sampan.errors import Unavailable

UNIT, BLOCK = 1 << 16, 1 << 26
ENGINES = st.sampled_from(("one", "other"))
HOLDERS = st.sampled_from("abcdef")


class Engines(RuleBasedStateMachine):
    """``running`` is what the kernel would show: it outlives every engine."""

    def __init__(self) -> None:
        super().__init__()
        self._place = tempfile.TemporaryDirectory()
        self._locks: dict[str, int] = {}
        self._pools: dict[str, IdRanges] = {}
        self.running: dict[tuple[str, str], tuple[int, int]] = {}
        for name in ("one", "other"):
            os.mkdir(f"{self._place.name}/{name}")
            self._begin(name)

    def _begin(self, name: str) -> None:
        root = f"{self._place.name}/{name}"
        self._locks[name] = lock(root, "data root")
        blocks = IdBlocks(root, first=1 << 25, size=BLOCK, directory=f"{self._place.name}/ids")
        pool = self._pools[name] = IdRanges(blocks, unit=UNIT)
        for (engine, holder), (base, span) in self.running.items():
            if engine == name:
                assert pool.claim(holder, base, span)

    @rule(engine=ENGINES, holder=HOLDERS, span=st.integers(1, 40 * UNIT))
    def lease(self, engine: str, holder: str, span: int) -> None:
        with contextlib.suppress(Unavailable):
            self.running[engine, holder] = self._pools[engine].lease(holder, span)

    @rule(engine=ENGINES, holder=HOLDERS)
    def end(self, engine: str, holder: str) -> None:
        self.running.pop((engine, holder), None)
        self._pools[engine].release(holder)

    @rule(engine=ENGINES, base=st.integers(0, 60), span=st.integers(1, 4))
    def claim_whatever_it_is(self, engine: str, base: int, span: int) -> None:
        """A container found running claims what it has; nobody else's may be given to it."""
        ids = (BLOCK + base * UNIT, span * UNIT)
        self.end(engine, "found")
        if self._pools[engine].claim("found", *ids):
            self.running[engine, "found"] = ids

    @rule(engine=ENGINES)
    def killed(self, engine: str) -> None:
        os.close(self._locks.pop(engine))
        self._begin(engine)

    @precondition(lambda self: not any(engine == "one" for engine, _ in self.running))
    @rule()
    def gives_all_back(self) -> None:
        os.close(self._locks.pop("one"))
        self._pools["one"]._blocks.give_back()  # type: ignore[attr-defined]
        self._begin("one")

    @invariant()
    def nobody_has_what_another_has(self) -> None:
        taken: set[int] = set()
        ranges: set[tuple[str, tuple[int, int]]] = {(key[0], ids) for key, ids in self.running.items()}
        for _, (base, span) in ranges:
            units = set(range(base // UNIT, (base + span) // UNIT))
            assert taken.isdisjoint(units), self.running
            taken |= units

    def teardown(self) -> Any:
        for fd in self._locks.values():
            os.close(fd)
        self._place.cleanup()


TestEngines = Engines.TestCase
TestEngines.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

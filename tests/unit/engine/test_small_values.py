"""Names, signals, id ranges, CPU lists, log sizes, filters, cgroup-independent odds and ends."""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.engine import FACTS, World

from sampan.daemon.instance import lock
from sampan.engine import names
from sampan.engine.host import HostFacts, parse_cpu_list
from sampan.engine.idblocks import IdBlocks
from sampan.engine.idranges import IdRanges, OneEngine
from sampan.engine.model import Filters
from sampan.errors import InvalidArgument, Unavailable
from sampan.spec import signals


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("SIGTERM", 15),
        ("term", 15),
        ("TERM", 15),
        ("9", 9),
        ("SIGRTMIN", 34),
        ("RTMIN+3", 37),
        ("SIGRTMAX-1", 63),
        ("64", 64),
        ("CLD", signal.SIGCHLD),
    ],
)
def test_signals(text: str, number: int) -> None:
    assert signals.number(text) == number


@pytest.mark.parametrize("text", ["", "0", "SIGNOPE", "RTMIN+31", "15.0"])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid signal: "):
        signals.number(text)


@pytest.mark.parametrize("text", ["65", "-1", "32"])
def test_signals_that_cannot_be_sent(text: str) -> None:
    assert signals.number(text) == int(text)
    with pytest.raises(InvalidArgument, match=f"the linux daemon does not support signal {text}"):
        signals.sendable(text)


def test_random_names_are_valid_and_avoid_the_taken() -> None:
    chance = random.Random(1)
    taken: set[str] = set()
    for _ in range(500):
        name = names.generate(taken.__contains__, chance)
        assert names.check(name) == name
        assert name not in taken
        taken.add(name)


def test_a_name_is_found_when_every_pair_is_taken() -> None:
    free = "9"
    name = names.generate(lambda name: not name.endswith(free), random.Random(1))
    assert name.endswith(free)


class TestIdRanges:
    def test_leases_do_not_overlap_and_cover_what_is_asked(self) -> None:
        pool = IdRanges(OneEngine(first=1 << 25))
        spans = [1, 65536, 65537, 200_000, pool.largest, pool.largest, pool.largest]
        leases = [pool.lease(str(number), span) for number, span in enumerate(spans)]
        assert [length for _, length in leases[:4]] == [65536, 65536, 131072, 262144]
        ends = sorted((base, base + length) for base, length in leases)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))

    def test_a_range_is_reused_only_after_the_others(self) -> None:
        pool = IdRanges(OneEngine(size=1 << 29), unit=1 << 28)
        first, _ = pool.lease("a", 1)
        pool.release("a")
        pool.release("a")
        assert [pool.lease(name, 1)[0] >> 28 for name in "bc"] == [1, first >> 28]

    def test_the_ids_of_the_host_come_to_an_end(self) -> None:
        pool = IdRanges(OneEngine(size=1 << 29), unit=1 << 29)
        assert [pool.lease(name, 1)[0] >> 29 for name in "abc"] == [0, 1, 2]
        with pytest.raises(Unavailable):
            pool.lease("d", 1)

    def test_leasing_again_gives_the_former_back(self) -> None:
        pool = IdRanges(OneEngine())
        pool.lease("a", 1)
        pool.lease("a", 1)
        assert len(pool) == 1

    def test_claims_of_running_containers(self) -> None:
        pool = IdRanges(OneEngine(first=1 << 25))
        base = 1 << 25
        assert pool.claim("a", base + 3 * 65536, 2 * 65536)
        assert not pool.claim("b", base + 4 * 65536, 65536)
        assert not pool.claim("b", base + 3 * 65536 + 1, 65536)
        assert not pool.claim("b", base, 0)
        assert pool.lease("b", 3 * 65536)[0] not in range(base + 65536, base + 5 * 65536)

    def test_those_who_share_a_user_namespace_share_its_range(self) -> None:
        pool = IdRanges(OneEngine())
        base, span = pool.lease("a", 1)
        assert pool.claim("b", base, span)
        assert pool.claim("b", base, span)
        pool.release("a")
        assert not pool.claim("c", base, 2 * span)
        pool.release("b")
        assert pool.claim("c", base, 2 * span)

    def test_what_the_host_gave_to_others_is_left_out(self) -> None:
        blocks = OneEngine()
        blocks.reserved = ((0, 65536), (100_000, 65536))
        pool = IdRanges(blocks)
        assert pool.lease("a", 1)[0] == 3 * 65536


class TestIdBlocks:
    def blocks(self, directory: Path, name: str, *, serving: bool = True) -> IdBlocks:
        root = directory / name
        root.mkdir(exist_ok=True)
        if serving and name not in self.locks:
            self.locks[name] = lock(str(root), "data root")
        return IdBlocks(str(root), first=1 << 25, size=1 << 29, directory=str(directory / "ids"))

    @pytest.fixture(autouse=True)
    def _locks(self) -> Iterator[None]:
        self.locks: dict[str, int] = {}
        yield
        for fd in self.locks.values():
            os.close(fd)

    def test_two_engines_take_different_ones(self, tmp_path: Path) -> None:
        one, other = self.blocks(tmp_path, "one"), self.blocks(tmp_path, "other")
        assert [one.claim(), other.claim(), one.claim()] == [1, 2, None]
        assert self.blocks(tmp_path, "one").held() == [1]
        assert not one.reclaim(2)
        assert one.reclaim(1)
        one.give_back()
        one.give_back()
        assert one.held() == []
        assert other.claim() == 1

    def test_an_engine_that_is_gone_loses_its_own_when_there_are_no_others(self, tmp_path: Path) -> None:
        gone, here = self.blocks(tmp_path, "gone", serving=False), self.blocks(tmp_path, "here")
        assert gone.claim() == 1
        assert here.claim() == 2
        assert here.claim() == 1
        assert gone.held() == []

    def test_a_damaged_claim_is_taken_over_last(self, tmp_path: Path) -> None:
        here = self.blocks(tmp_path, "here")
        (tmp_path / "ids").mkdir()
        (tmp_path / "ids" / "1.json").write_text("{")
        assert [here.claim(), here.claim()] == [2, 1]


@given(st.sets(st.integers(0, 300), min_size=1))
def test_cpu_lists(numbers: set[int]) -> None:
    assert parse_cpu_list(",".join(map(str, numbers))) == numbers


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-", "-1", "1,,2", "1-999999999"])
def test_what_is_no_cpu_list(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_cpu_list(text)


def test_this_host_can_be_read() -> None:
    facts = HostFacts.read()
    assert facts.cpu_count >= 1
    assert parse_cpu_list(facts.cpus)
    assert facts.memory_total > 1 << 20


class TestFilters:
    def test_both_forms_on_the_wire(self) -> None:
        assert Filters.parse('{"label":["a","b"]}') == Filters({"label": ("a", "b")})
        assert Filters.parse('{"label":{"a":true,"b":false}}') == Filters({"label": ("a",)})
        assert not Filters.parse("")

    @pytest.mark.parametrize("text", ["{", "[]", '{"a":1}', '"a"'])
    def test_other_documents_are_refused(self, text: str) -> None:
        with pytest.raises(InvalidArgument, match="invalid filter"):
            Filters.parse(text)

    def test_flags(self) -> None:
        assert Filters().flag("dangling") is None
        assert Filters({"dangling": ("1",)}).flag("dangling") is True
        assert Filters({"dangling": ("false",)}).flag("dangling") is False
        with pytest.raises(InvalidArgument, match=r"invalid filter 'dangling=\[odd\]'"):
            Filters({"dangling": ("odd",)}).flag("dangling")

    def test_all_labels_have_to_match(self) -> None:
        labels = {"a": "1", "b": ""}
        assert Filters({"label": ("a", "b=")}).matches_labels(labels)
        assert not Filters({"label": ("a=1", "c")}).matches_labels(labels)
        assert not Filters({"label": ("a",)}).matches_labels(None)


async def test_info_counts_containers(world: World) -> None:
    from sampan.engine.system import System
    from sampan.images.drivers.overlay import Overlay

    await world.run("sleep", name="up")
    await world.run("sleep", name="frozen")
    await world.containers.pause("frozen")
    await world.create("sleep")
    system = System(
        store=world.store,
        snapshots=world.snapshots,
        events=world.events,
        count_images=lambda: 4,
        driver=Overlay(root="/"),
        settings=world.settings,
    )
    info = system.info()
    counts = (info.containers, info.containers_running, info.containers_paused, info.containers_stopped)
    assert counts == (3, 1, 1, 1)
    assert (info.images, info.name, info.cpu_count) == (4, FACTS.hostname, 2)
    assert system.identity() == system.identity()
    assert info.security_options == ("name=seccomp,profile=builtin", "name=userns", "name=cgroupns")
    usage = await system.container_usage()
    assert [found.space.occupied for found in usage] == [4096, 4096, 4096]
    assert system.version().api_version == "1.56"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, ["name=seccomp,profile=builtin"]),
        ({"seccomp_profile": "unconfined"}, ["name=seccomp,profile=unconfined"]),
        ({"seccomp_profile": "{}"}, ["name=seccomp,profile=custom"]),
        ({"no_new_privileges": True}, ["name=seccomp,profile=builtin", "name=no-new-privileges"]),
    ],
)
async def test_info_tells_what_containers_are_confined_by(
    world: World, options: dict[str, Any], shown: list[str]
) -> None:
    from sampan.engine.system import System
    from sampan.images.drivers.overlay import Overlay

    settings = replace(world.settings, options=replace(world.settings.options, **options))
    system = System(
        store=world.store,
        snapshots=world.snapshots,
        events=world.events,
        count_images=lambda: 0,
        driver=Overlay(root="/"),
        settings=settings,
    )
    assert list(system.info().security_options)[: len(shown)] == shown

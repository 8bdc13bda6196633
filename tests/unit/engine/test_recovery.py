"""What the next daemon makes of what the last one left behind."""

from __future__ import annotations

import os
import shutil

import pytest
from msgspec.structs import replace
from tests.fakes.engine import World, settle

from sampan.engine.model import Container, RestartPolicy, Status
from sampan.engine.options import EngineOptions
from sampan.engine.recovery import Leftovers
from sampan.errors import NotFound
from sampan.sandbox.messages import Exit, encode


def leave_exit(world: World, container_id: str, code: int, finished_at: float) -> None:
    with open(world.paths.exit_record(container_id), "wb") as file:
        file.write(encode(Exit(code=code, finished_at=finished_at)))


async def test_containers_that_run_are_followed_again(world: World) -> None:
    web = await world.run("sleep", name="web")
    world.runtime.living[web] = world.task(web)
    await world.restart_daemon()
    state = world.containers.get("web").state
    assert (state.status, state.pid) == (Status.RUNNING, 1000)
    assert world.bridges.reconciled == [web]
    waiting = world.containers.wait("web")
    world.task(web).end(4)
    assert (await waiting).code == 4


async def test_a_paused_container_is_still_paused(world: World) -> None:
    web = await world.run("sleep")
    await world.containers.pause(web)
    world.runtime.living[web] = world.task(web)
    await world.restart_daemon()
    assert world.containers.get(web).state.paused


@pytest.mark.parametrize("frozen", [True, False])
async def test_whether_it_is_paused_the_kernel_knows(world: World, frozen: bool) -> None:
    """The daemon died after the keeper had done as it was told, and before that was recorded."""
    web = await world.run("sleep")
    if not frozen:
        await world.containers.pause(web)
    world.runtime.living[web] = world.task(web)
    world.task(web).frozen = frozen
    await world.restart_daemon()
    assert world.containers.get(web).state.paused is frozen


async def test_an_end_while_its_ports_are_published_again_is_no_less_an_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is recorded meanwhile, and what was known before that must not be written over it."""
    web = await world.run("sleep", name="web")
    world.runtime.living[web] = world.task(web)

    async def republished(_: Leftovers, container: Container) -> Container:
        world.task(web).end(4)
        await settle()
        return replace(container)

    monkeypatch.setattr(Leftovers, "republished", republished)
    await world.restart_daemon()
    state = world.containers.get("web").state
    assert (state.status, state.exit_code) == (Status.EXITED, 4)


async def test_an_exit_in_between_is_read_from_its_record(world: World) -> None:
    web = await world.run("sleep", name="web")
    leave_exit(world, web, 5, 1_700_000_100.5)
    await world.restart_daemon()
    state = world.containers.get("web").state
    assert (state.status, state.exit_code, state.finished_at) == (
        Status.EXITED,
        5,
        1_700_000_100_500_000_000,
    )
    assert (await world.containers.wait("web")).code == 5


async def test_without_keeper_or_record_it_was_killed_and_the_reason_is_told(world: World) -> None:
    web = await world.run("sleep")
    await world.restart_daemon()
    state = world.containers.get(web).state
    assert (state.status, state.exit_code) == (Status.EXITED, 137)
    assert "no record of its exit" in state.error
    assert world.ended_groups == [f"/sampan/{web}"]
    assert world.containers.get(web).network.networks["bridge"].ip_address == ""


async def test_what_ran_when_the_host_was_switched_off_says_so_as_in_docker(world: World) -> None:
    web = await world.run("sleep")
    shutil.rmtree(world.paths.bundle(web), ignore_errors=True)  # as all of /run
    await world.restart_daemon()
    state = world.containers.get(web).state
    assert (state.status, state.exit_code) == (Status.EXITED, 255)


async def test_a_torn_exit_record_counts_as_none(world: World) -> None:
    web = await world.run("sleep")
    with open(world.paths.exit_record(web), "wb") as file:
        file.write(b'{"code":')
    await world.restart_daemon()
    assert world.containers.get(web).state.exit_code == 137


async def test_a_start_whose_record_was_lost_is_found_by_its_keeper(world: World) -> None:
    web = await world.create("sleep")
    before = world.store.find(web).container
    await world.containers.start(web)
    world.runtime.living[web] = world.task(web)
    world.store.update(world.store.find(web), before)  # as if the state had never been written
    await world.restart_daemon()
    found = world.containers.get(web)
    assert found.state.status is Status.RUNNING
    assert found.network.networks["bridge"].ip_address == "172.17.0.2"


async def test_a_start_whose_record_was_lost_has_ended_a_stop(world: World) -> None:
    policy = RestartPolicy(name="unless-stopped")
    web = await world.run("sleep", name="web", restart_policy=policy)
    await world.containers.stop(web)
    stopped = world.store.find(web).container
    assert stopped.has_been_manually_stopped
    await world.containers.start(web)
    world.runtime.living[web] = world.task(web)
    instance = world.store.find(web)
    world.store.update(instance, stopped)  # what the database had when the daemon died
    await world.store.recorded()
    await world.restart_daemon()
    assert world.containers.get(web).state.running
    world.task(web).end(1)
    await settle()
    assert world.containers.get(web).state.status is Status.RESTARTING


async def test_a_run_of_which_only_the_exit_record_is_left_is_known(world: World) -> None:
    web = await world.create("sleep")
    leave_exit(world, web, 6, 1_700_000_100.0)
    await world.restart_daemon()
    state = world.containers.get(web).state
    assert (state.status, state.exit_code) == (Status.EXITED, 6)


async def test_an_old_exit_record_does_not_touch_a_newer_state(world: World) -> None:
    web = await world.run("sleep")
    world.task(web).end(1)
    await settle()
    finished = world.containers.get(web).state.finished_at
    recorder = world.record_events()
    await world.restart_daemon()
    assert world.containers.get(web).state.finished_at == finished
    assert await recorder.told() == []


async def test_a_rm_container_that_ended_meanwhile_is_removed(world: World) -> None:
    web = await world.run("sleep", auto_remove=True, binds=("/data",))
    leave_exit(world, web, 0, 1_700_000_100.0)
    await world.restart_daemon()
    with pytest.raises(NotFound):
        world.containers.get(web)
    assert not world.snapshots.there
    assert not world.volumes.there
    assert not os.path.exists(world.paths.container(web))
    await world.restart_daemon()
    assert len(world.store) == 0


async def test_remains_that_could_not_be_removed_go_with_the_next_start(world: World) -> None:
    web = await world.create("sleep", name="web")
    world.snapshots.refuse = "device or resource busy"
    await world.containers.remove(web)
    await world.containers.settle()
    with pytest.raises(NotFound):
        world.containers.get(web)
    assert web in world.snapshots.there
    world.snapshots.refuse = None
    await world.restart_daemon()
    assert not world.snapshots.there
    await world.create("sleep", name="web")


async def test_what_belongs_to_nobody_is_cleaned_away(world: World) -> None:
    web = await world.create("sleep")
    stray = "cd" * 32
    world.snapshots.there.add(stray)
    os.makedirs(world.paths.container(stray))
    os.makedirs(world.paths.bundle(stray))
    with open(f"{world.paths.bundle(stray)}/keeper.sock", "w", encoding="ascii"):
        pass
    await world.restart_daemon()
    assert list(world.snapshots.there) == [web]
    assert os.listdir(world.paths.containers) == [web]
    assert os.listdir(world.paths.bundles) == []


async def test_what_still_runs_of_a_start_that_was_cut_short_is_ended(world: World) -> None:
    web = await world.create("sleep")
    gone = "cd" * 32
    for name in (web, gone):
        os.makedirs(world.paths.bundle(name))
    await world.restart_daemon()
    assert sorted(world.ended_groups) == sorted([f"/sampan/{web}", f"/sampan/{gone}"])
    assert world.containers.get(web).state.status is Status.CREATED
    assert os.listdir(world.paths.bundles) == []


async def test_a_bundle_that_holds_something_is_left_alone(world: World) -> None:
    stray = "cd" * 32
    os.makedirs(f"{world.paths.bundle(stray)}/rootfs")
    with open(f"{world.paths.bundle(stray)}/rootfs/precious", "w", encoding="ascii"):
        pass
    await world.restart_daemon()
    assert os.path.exists(f"{world.paths.bundle(stray)}/rootfs/precious")


async def test_names_and_renames_are_kept(world: World) -> None:
    web = await world.create("sleep", name="web")
    await world.containers.rename("web", "front")
    await world.restart_daemon()
    assert world.containers.get("front").id == web
    with pytest.raises(NotFound):
        world.containers.get("web")


async def test_ids_of_running_containers_stay_theirs(tmp_path: object) -> None:
    world = World(str(tmp_path), options=EngineOptions(userns="private"))
    web = await world.run("sleep")
    base = world.containers.get(web).state.id_base
    world.runtime.living[web] = world.task(web)
    await world.restart_daemon()
    other = await world.run("sleep")
    assert world.containers.get(web).state.id_base == base
    assert world.containers.get(other).state.id_base not in (0, base)
    world.close()


async def test_recovering_twice_changes_nothing_more(world: World) -> None:
    web = await world.run("sleep")
    leave_exit(world, web, 5, 1_700_000_100.0)
    await world.restart_daemon()
    first = world.containers.get(web)
    await world.restart_daemon()
    assert world.containers.get(web) == first

"""The table of moves, and the use cases that walk it."""

from __future__ import annotations

import asyncio
import os

import pytest
from tests.fakes.engine import DENIED, NOT_FOUND, STUBBORN, FakeStream, World, settle

from sampan.engine.lifecycle import MOVES, Move, after
from sampan.engine.model import (
    Container,
    ContainerConfig,
    ContainerState,
    HostConfig,
    NetworkingConfig,
    Status,
)
from sampan.errors import Conflict, DiskFull, InvalidArgument, NotFound
from sampan.sandbox.messages import AttachOptions

ID = "ab" * 32
NO_NETWORK = NetworkingConfig()


def container(status: Status) -> Container:
    return Container(
        id=ID,
        name="web",
        created=1,
        path="sh",
        args=(),
        image_id="sha256:0",
        config=ContainerConfig(),
        host=HostConfig(),
        state=ContainerState(status=status),
    )


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("move", Move)
def test_every_move_is_in_the_table_or_refused_in_one_line(status: Status, move: Move) -> None:
    if (status, move) in MOVES:
        assert after(container(status), move) is MOVES[(status, move)]
    else:
        with pytest.raises(Conflict) as refused:
            after(container(status), move, ref="web")
        assert "{" not in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("status", "move", "words"),
    [
        (Status.EXITED, Move.KILL, f"cannot kill container: web: container {ID} is not running"),
        (Status.PAUSED, Move.PAUSE, f"container {ID} is already paused"),
        (Status.RUNNING, Move.UNPAUSE, f"container {ID} is not paused"),
        (Status.PAUSED, Move.EXEC, f"container {ID} is paused, unpause the container before exec"),
        (Status.REMOVING, Move.REMOVE, "removal of container web is already in progress"),
        (
            Status.RUNNING,
            Move.REMOVE,
            'cannot remove container "web": container is running: '
            "stop the container before removing or force remove",
        ),
    ],
)
def test_refusals_are_dockers(status: Status, move: Move, words: str) -> None:
    with pytest.raises(Conflict) as refused:
        after(container(status), move, ref="web")
    assert str(refused.value) == words


async def test_a_life_from_create_to_destroy_is_told_in_dockers_order(world: World) -> None:
    recorder = world.record_events()
    await world.run("sleep", name="web")
    state = world.containers.get("web").state
    assert (state.status, state.pid) == (Status.RUNNING, 1000)
    await world.containers.pause("web")
    assert world.containers.get("web").state.paused
    await world.containers.unpause("web")
    assert await world.containers.stop("web")
    state = world.containers.get("web").state
    assert (state.status, state.exit_code, state.pid) == (Status.EXITED, 143, 0)
    assert not await world.containers.stop("web")
    assert await world.containers.start("web")
    assert not await world.containers.start("web")
    await world.containers.kill("web")
    await world.containers.remove("web")
    assert await recorder.told() == [
        *("create", "connect", "start", "pause", "unpause", "kill", "die", "disconnect", "stop"),
        *("connect", "start", "kill", "die", "disconnect", "destroy"),
    ]


async def test_the_end_of_a_program_is_recorded_with_its_code_and_duration(world: World) -> None:
    subscription = world.events.subscribe()
    web = await world.run("sleep")
    world.task(web).end(3)
    await settle()
    state = world.containers.get(web).state
    assert (state.exit_code, state.finished_at - state.started_at) == (3, 3_000_000_000)
    subscription.close()
    (died,) = [event async for event in subscription if event.action == "die"]
    assert died.attributes["exitCode"] == "3"
    assert died.attributes["execDuration"] == "3"
    assert died.attributes["image"] == "base"
    assert died.attributes["name"] == world.containers.get(web).name


async def test_volumes_are_told_when_they_are_mounted_and_unmounted(world: World) -> None:
    web = await world.create("sleep", binds=("data:/data:ro", "/:/host"))
    recorder = world.events.subscribe()
    await world.containers.start(web)
    world.task(web).end()
    await settle()
    recorder.close()
    told = [(event.action, event.actor_id) async for event in recorder if event.type == "volume"]
    assert told == [("mount", "data"), ("unmount", "data")]


async def test_what_a_dead_keeper_leaves_is_cleaned_away(world: World) -> None:
    web = await world.run("sleep")
    world.task(web).end(137, error="the container's keeper process was killed")
    await settle()
    assert world.containers.get(web).state.error == "the container's keeper process was killed"
    assert os.listdir(world.paths.bundles) == []


async def test_an_oom_kill_is_told_before_the_death(world: World) -> None:
    web = await world.run("sleep")
    recorder = world.record_events(type=("container",))
    world.task(web).end(137, oom_killed=True)
    await settle()
    assert world.containers.get(web).state.oom_killed
    assert await recorder.told() == ["oom", "die"]


async def test_stop_kills_what_ignores_the_signal_after_the_grace_period(world: World) -> None:
    web = await world.run(STUBBORN)
    assert await world.containers.stop(web, timeout=0)
    assert world.runtime.tasks[web].signals == [15, 9]
    assert world.containers.get(web).state.exit_code == 137


async def test_stop_uses_the_containers_signal_and_the_callers_before_it(world: World) -> None:
    config = ContainerConfig(image="base", cmd=("sleep",), stop_signal="SIGINT", stop_timeout=0)
    created = await world.containers.create("web", config, HostConfig(), NO_NETWORK)
    await world.containers.start(created.id)
    await world.containers.stop("web")
    assert world.task(created.id).signals == [2, 9]
    await world.containers.start(created.id)
    await world.containers.stop("web", signal="HUP")
    assert world.task(created.id).signals == [1, 9]
    with pytest.raises(InvalidArgument, match="invalid signal: NOPE"):
        await world.containers.stop("web", signal="NOPE")


async def test_a_signal_to_a_paused_container_resumes_it(world: World) -> None:
    web = await world.run("sleep")
    await world.containers.pause(web)
    recorder = world.record_events(type=("container",))
    await world.containers.kill(web, "USR1")
    assert not world.task(web).frozen
    assert world.containers.get(web).state.status is Status.RUNNING
    assert await recorder.told() == ["kill", "unpause"]


async def test_killing_a_paused_container_ends_it(world: World) -> None:
    web = await world.run("sleep")
    await world.containers.pause(web)
    await world.containers.kill(web)
    assert world.containers.get(web).state.status is Status.EXITED


@pytest.mark.parametrize(("program", "code"), [(NOT_FOUND, 127), (DENIED, 126)])
async def test_a_program_that_cannot_be_run_leaves_its_code_and_reason(
    world: World, program: str, code: int
) -> None:
    web = await world.create(program)
    with pytest.raises(InvalidArgument, match="OCI runtime create failed"):
        await world.containers.start(web)
    state = world.containers.get(web).state
    assert (state.status, state.exit_code) == (Status.CREATED, code)
    assert "OCI runtime create failed" in state.error
    assert not world.bridges.connected
    assert world.containers.get(web).network.networks["bridge"].ip_address == ""


async def test_a_failed_start_removes_a_rm_container_and_answers_its_waiters(world: World) -> None:
    web = await world.create(NOT_FOUND, auto_remove=True)
    removed = world.containers.wait(web, "removed")
    with pytest.raises(InvalidArgument):
        await world.containers.start(web)
    assert (await removed).code == 127
    with pytest.raises(NotFound):
        world.containers.get(web)
    assert not world.snapshots.there


async def test_a_rm_container_is_gone_as_soon_as_it_ends(world: World) -> None:
    recorder = world.record_events(type=("container",))
    web = await world.run("sleep", name="web", auto_remove=True)
    exited, removed = world.containers.wait(web), world.containers.wait(web, "removed")
    world.task(web).end(7)
    assert ((await exited).code, (await removed).code) == (7, 7)
    with pytest.raises(NotFound, match="No such container: web"):
        world.containers.get("web")
    again = await world.create("sleep", name="web")
    await settle()
    assert list(world.snapshots.there) == [again]
    assert not os.path.exists(world.paths.container(web))
    assert await recorder.told() == ["create", "start", "die", "destroy", "create"]


async def test_restart_keeps_a_rm_container(world: World) -> None:
    web = await world.run("sleep", auto_remove=True)
    await world.containers.restart(web)
    assert world.containers.get(web).state.status is Status.RUNNING
    world.task(web).end()
    await settle()
    with pytest.raises(NotFound):
        world.containers.get(web)


async def test_removal_needs_a_stopped_container_or_force(world: World) -> None:
    web = await world.run("sleep", name="web")
    with pytest.raises(Conflict, match="container is running"):
        await world.containers.remove("web")
    await world.containers.remove("web", force=True)
    assert world.runtime.tasks[web].signals == [9]
    with pytest.raises(NotFound):
        await world.containers.remove("web")
    assert not world.snapshots.there


async def test_attaching_before_the_start_joins_the_start(world: World) -> None:
    web = await world.create("sleep")
    stream = FakeStream()
    options = AttachOptions(stdout=True)
    recorder = world.record_events(type=("container",))
    await world.containers.attach(web, options, lambda: stream)
    await world.containers.start(web)
    assert world.task(web).attached == [(stream, options)]
    late = FakeStream()
    await world.containers.attach(web, options, lambda: late)
    handed, asked = world.task(web).attached[1]
    assert (handed.detach(), asked) == (late.detach(), options)
    assert await recorder.told() == ["attach", "start", "attach"]


async def test_a_client_that_waits_for_a_start_is_let_go_with_the_container(world: World) -> None:
    web = await world.create("sleep")
    stream = FakeStream()
    await world.containers.attach(web, AttachOptions(stdout=True), lambda: stream)
    await world.containers.remove(web)
    assert stream.received() == b""


async def test_a_paused_container_cannot_be_attached_to(world: World) -> None:
    web = await world.run("sleep")
    await world.containers.pause(web)
    with pytest.raises(Conflict, match="unpause the container before attach"):
        await world.containers.attach(web, AttachOptions(), FakeStream)


async def test_resizing_reaches_the_terminal_and_is_told(world: World) -> None:
    web = await world.run("sleep")
    recorder = world.record_events(type=("container",))
    await world.containers.resize(web, 40, 120)
    assert world.task(web).size == (40, 120)
    assert await recorder.told() == ["resize"]
    await world.containers.kill(web)
    with pytest.raises(Conflict, match="is not running"):
        await world.containers.resize(web, 1, 1)


async def test_a_caller_that_goes_away_does_not_undo_a_start(world: World) -> None:
    web = await world.create("sleep")
    world.runtime.gate = asyncio.Event()
    starting = asyncio.create_task(world.containers.start(web))
    await settle()
    starting.cancel()
    await settle()
    world.runtime.gate.set()
    await world.containers.settle()
    assert world.containers.get(web).state.status is Status.RUNNING


class TestRaces:
    async def test_what_ends_while_its_keeper_is_asked_is_not_running(self, world: World) -> None:
        web = await world.run("sleep")
        world.task(web).dying = 3
        with pytest.raises(Conflict, match=f"container {web} is not running"):
            await world.containers.pause(web)
        assert world.containers.get(web).state.exit_code == 3

    async def test_two_starts_run_it_once(self, world: World) -> None:
        web = await world.create("sleep")
        answers = await asyncio.gather(world.containers.start(web), world.containers.start(web))
        assert sorted(answers) == [False, True]
        assert len(world.runtime.launches) == 1

    async def test_a_removal_waits_for_a_start_and_then_sees_it_running(self, world: World) -> None:
        web = await world.create("sleep")
        answers = await asyncio.gather(
            world.containers.start(web), world.containers.remove(web), return_exceptions=True
        )
        assert answers[0] is True
        assert isinstance(answers[1], Conflict)

    async def test_a_start_after_a_removal_finds_nothing(self, world: World) -> None:
        web = await world.create("sleep")
        answers = await asyncio.gather(
            world.containers.remove(web), world.containers.start(web), return_exceptions=True
        )
        assert answers[0] is None
        assert isinstance(answers[1], NotFound | Conflict)

    async def test_forced_removal_ends_a_patient_stop(self, world: World) -> None:
        web = await world.run(STUBBORN)
        stopping = asyncio.create_task(world.containers.stop(web, timeout=-1))
        await settle()
        assert not stopping.done()
        await world.containers.remove(web, force=True)
        assert await stopping

    async def test_two_removals_each_get_a_true_answer(self, world: World) -> None:
        web = await world.run("sleep")
        answers = await asyncio.gather(
            world.containers.remove(web, force=True),
            world.containers.remove(web, force=True),
            return_exceptions=True,
        )
        assert None in answers
        assert all(answer is None or isinstance(answer, Conflict) for answer in answers)

    async def test_two_stops_both_say_that_they_stopped_it(self, world: World) -> None:
        web = await world.run("sleep")
        answers = await asyncio.gather(world.containers.stop(web), world.containers.stop(web))
        assert True in answers

    async def test_a_name_is_given_to_one_of_two(self, world: World) -> None:
        answers = await asyncio.gather(
            world.create("sleep", name="web"), world.create("sleep", name="web"), return_exceptions=True
        )
        assert sum(isinstance(answer, str) for answer in answers) == 1
        assert sum(isinstance(answer, Conflict) for answer in answers) == 1


class TestWaiting:
    async def test_not_running_is_answered_at_once_for_what_does_not_run(self, world: World) -> None:
        web = await world.create("sleep")
        assert (await world.containers.wait(web)).code == 0

    async def test_next_exit_waits_for_a_start_and_an_end(self, world: World) -> None:
        web = await world.create("sleep")
        waiting = world.containers.wait(web, "next-exit")
        await world.containers.start(web)
        assert not waiting.done()
        world.task(web).end(9)
        assert (await waiting).code == 9

    async def test_a_removal_answers_everybody(self, world: World) -> None:
        web = await world.create("sleep")
        waiting = [world.containers.wait(web, condition) for condition in ("next-exit", "removed")]
        await world.containers.remove(web)
        assert [(await future).code for future in waiting] == [0, 0]

    async def test_a_waiter_that_went_away_is_forgotten(self, world: World) -> None:
        web = await world.run("sleep")
        waiting = world.containers.wait(web)
        waiting.cancel()
        await settle()
        assert world.store.find(web).waiters == []

    async def test_an_unknown_condition_is_refused(self, world: World) -> None:
        web = await world.create("sleep")
        with pytest.raises(InvalidArgument, match='invalid condition: "dead"'):
            world.containers.wait(web, "dead")


async def test_on_a_full_disk_the_remains_make_room_for_the_record_of_the_removal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = await world.create("sleep")
    forget = world.store.forget

    async def forget_when_there_is_room(container_id: str, **options: bool) -> None:
        if world.snapshots.there:
            raise DiskFull("the state database cannot be written: database or disk is full")
        await forget(container_id, **options)

    monkeypatch.setattr(world.store, "forget", forget_when_there_is_room)
    await world.containers.remove(web)
    with pytest.raises(NotFound):
        world.containers.get(web)

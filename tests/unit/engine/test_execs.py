"""Commands in running containers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.fakes.engine import NOT_FOUND, FakeStream, World, settle

from sampan.engine.model import ExecConfig
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.wire import stdcopy

LS = ExecConfig(cmd=("ls", "-l"), attach_stdout=True)


async def test_a_life_of_an_exec(world: World) -> None:
    web = await world.run("sleep")
    recorder = world.record_events(type=("container",))
    exec_id = await world.execs.create(web, LS)
    assert world.containers.get(web).exec_ids == (exec_id,)
    assert not world.execs.inspect(exec_id).running
    stream = FakeStream()
    await world.execs.start(exec_id, take=lambda: stream)
    found = world.execs.inspect(exec_id)
    assert (found.running, found.exit_code, found.pid) == (True, None, 1001)
    world.task(web).exec_tasks[0].exited.set_result(3)
    await settle()
    found = world.execs.inspect(exec_id)
    assert (found.running, found.exit_code) == (False, 3)
    assert await recorder.told() == ["exec_create: ls -l", "exec_start: ls -l", "exec_die"]


async def test_what_the_runtime_is_told(world: World) -> None:
    web = await world.run("sleep")
    config = ExecConfig(cmd=("sh",), user="www", privileged=True, attach_stdin=True, tty=True)
    exec_id = await world.execs.create(web, config)
    await world.execs.start(exec_id, take=FakeStream)
    told_id, process, options = world.task(web).execs[0]
    assert told_id == exec_id
    assert process["terminal"] is True
    assert options == {"user": "www", "filtered": False, "stdin": True}


async def test_a_detached_exec_has_no_stream(world: World) -> None:
    web = await world.run("sleep")
    exec_id = await world.execs.create(web, ExecConfig(cmd=("sh",), attach_stdin=True))
    await world.execs.start(exec_id, detach=True)
    assert world.task(web).execs[0][2]["stdin"] is False


@pytest.mark.parametrize("tty", [False, True])
async def test_a_program_that_cannot_be_run_is_told_in_the_stream(world: World, tty: bool) -> None:
    web = await world.run("sleep")
    exec_id = await world.execs.create(web, ExecConfig(cmd=(NOT_FOUND,), tty=tty))
    stream = FakeStream()
    await world.execs.start(exec_id, take=lambda: stream)
    message = f'exec: "{NOT_FOUND}": executable file not found in $PATH\r\n'.encode()
    assert stream.received() == (message if tty else stdcopy.frame(1, message))
    assert world.execs.inspect(exec_id).exit_code == 127


async def test_a_detached_program_that_cannot_be_run_is_an_error(world: World) -> None:
    web = await world.run("sleep")
    exec_id = await world.execs.create(web, ExecConfig(cmd=(NOT_FOUND,)))
    with pytest.raises(InvalidArgument, match="executable file not found"):
        await world.execs.start(exec_id, detach=True)
    with pytest.raises(Conflict, match="has already run"):
        await world.execs.start(exec_id, detach=True)


async def test_an_exec_into_what_just_ended_is_told_that_it_does_not_run(world: World) -> None:
    web = await world.run("sleep")
    exec_id = await world.execs.create(web, LS)
    world.task(web).dying = 0
    with pytest.raises(Conflict, match=f"container {web} is not running"):
        await world.execs.start(exec_id, detach=True)


async def test_an_exec_waits_for_a_pause_under_way(world: World) -> None:
    web = await world.run("sleep")
    exec_id = await world.execs.create(web, LS)
    gate = world.task(web).gate = asyncio.Event()
    pausing = asyncio.create_task(world.containers.pause(web))
    await settle()
    starting = asyncio.create_task(world.execs.start(exec_id, detach=True))
    await settle()
    assert not starting.done()
    gate.set()
    await pausing
    with pytest.raises(Conflict, match="unpause the container before exec"):
        await starting


async def test_refusals(world: World) -> None:
    web = await world.run("sleep", name="web")
    with pytest.raises(NotFound, match="No such container: nope"):
        await world.execs.create("nope", LS)
    with pytest.raises(InvalidArgument, match="No exec command specified"):
        await world.execs.create(web, ExecConfig())
    with pytest.raises(InvalidArgument, match="null character"):
        await world.execs.create(web, ExecConfig(cmd=("a\0b",)))
    with pytest.raises(InvalidArgument, match="invalid environment variable: =x"):
        await world.execs.create(web, ExecConfig(cmd=("a",), env=("=x",)))
    with pytest.raises(NotFound, match="No such exec instance: nope"):
        world.execs.inspect("nope")
    exec_id = await world.execs.create(web, LS)
    await world.execs.start(exec_id, detach=True)
    with pytest.raises(Conflict, match="is already running"):
        await world.execs.start(exec_id, detach=True)
    await world.containers.pause(web)
    with pytest.raises(Conflict, match="unpause the container before exec"):
        await world.execs.create(web, LS)
    await world.containers.kill(web)
    with pytest.raises(Conflict, match=f"container {web} is not running"):
        await world.execs.create("web", LS)


async def test_a_refused_start_does_not_take_the_connection(world: World) -> None:
    web = await world.run("sleep")
    exec_id = await world.execs.create(web, LS)
    await world.containers.kill(web)

    def take() -> Any:
        raise AssertionError("the connection was taken")

    with pytest.raises(Conflict):
        await world.execs.start(exec_id, take=take)


async def test_the_terminals_size(world: World) -> None:
    web = await world.run("sleep")
    exec_id = await world.execs.create(web, LS)
    with pytest.raises(Conflict):
        await world.execs.resize(exec_id, 1, 1)
    await world.execs.start(exec_id, detach=True)
    await world.execs.resize(exec_id, 40, 120)
    assert world.task(web).exec_tasks[0].size == (40, 120)


async def test_an_ended_exec_that_went_with_its_container_is_not_missed(world: World) -> None:
    gone, web = await world.run("sleep"), await world.run("sleep")
    exec_id = await world.execs.create(gone, ExecConfig(cmd=("true",)))
    await world.execs.start(exec_id, detach=True)
    world.task(gone).exec_tasks[0].exited.set_result(0)
    await settle()
    await world.containers.remove(gone, force=True)
    await world.execs.create(web, ExecConfig(cmd=("true",)))
    world.time += 301 * 1_000_000_000
    await world.execs.create(web, ExecConfig(cmd=("true",)))
    await world.containers.settle()


async def test_ended_execs_are_forgotten_after_a_while(world: World) -> None:
    web = await world.run("sleep")
    old = await world.execs.create(web, LS)
    await world.execs.start(old, detach=True)
    world.task(web).exec_tasks[0].exited.set_result(0)
    await settle()
    world.time += 301 * 1_000_000_000
    new = await world.execs.create(web, LS)
    assert world.containers.get(web).exec_ids == (new,)
    with pytest.raises(NotFound):
        world.execs.inspect(old)


async def test_execs_go_with_their_container(world: World) -> None:
    web = await world.run("sleep")
    exec_id = await world.execs.create(web, LS)
    await world.containers.remove(web, force=True)
    with pytest.raises(NotFound):
        world.execs.inspect(exec_id)

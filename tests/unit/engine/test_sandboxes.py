"""Whose ids and namespaces a start gets: what is joined, leased, allowed and said."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
from tests.fakes.engine import FACTS, World

from sampan.engine.idmaps import IdMaps
from sampan.engine.options import EngineOptions
from sampan.errors import Conflict, Forbidden, InvalidArgument, NotFound
from sampan.sandbox.messages import Neighbour


def users(world: World, ref: str) -> tuple[int, int, str]:
    state = world.containers.get(ref).state
    return state.id_base, state.id_span, state.host_ids


async def test_who_joins_has_the_namespaces_the_ids_and_the_files_of_the_other(world: World) -> None:
    x = await world.run("sleep", name="one", ipc_mode="shareable")
    await world.create(
        *("sleep", "1"),
        name="two",
        network_mode="container:one",
        pid_mode="container:one",
        ipc_mode="container:one",
    )
    await world.containers.start("two")
    pid = world.task(x).pid
    spec = world.runtime.launches[-1].spec
    paths = {one["type"]: one["path"] for one in spec["linux"]["namespaces"] if "path" in one}
    assert paths == {
        kind: f"/proc/{pid}/ns/{name}"
        for kind, name in {"network": "net", "pid": "pid", "ipc": "ipc", "user": "user"}.items()
    }
    assert world.runtime.launches[-1].neighbours == (Neighbour(pid=pid, cgroup=world.task(x).cgroup),)
    (shm,) = (mount for mount in spec["mounts"] if mount["destination"] == "/dev/shm")
    assert (shm["type"], shm["source"]) == ("neighbour", str(pid))
    assert users(world, "two") == users(world, "one")
    one, other = world.containers.get("one"), world.containers.get("two")
    assert (other.hosts_path, other.config.hostname) == (one.hosts_path, one.config.hostname)
    assert other.network.networks == {}
    assert set(world.bridges.connected) == {x}


async def test_ids_are_leased_until_the_last_has_ended(world: World) -> None:
    x = await world.run("sleep", name="one")
    base = users(world, "one")[0]
    await world.run("sleep", name="two", network_mode="container:one")
    await world.containers.remove(x, force=True)
    assert world.bridges.swept == 1
    for name in ("aa", "bb"):
        assert users(world, await world.run("sleep", name=name))[0] != base


async def test_they_stay_leased_over_a_new_daemon(world: World) -> None:
    x = await world.run("sleep", name="one")
    y = await world.run("sleep", name="two", network_mode="container:one")
    world.runtime.living |= {x: world.task(x), y: world.task(y)}
    before = users(world, y)
    await world.restart_daemon()
    assert users(world, x) == users(world, y) == before
    await world.containers.remove(x, force=True)
    assert world.bridges.swept == 1
    assert users(world, await world.run("sleep"))[0] != before[0]


async def test_a_start_that_was_not_recorded_is_taken_for_what_it_is(world: World) -> None:
    await world.run("sleep", name="one")
    y = await world.create("sleep", "1", name="two", network_mode="container:one")
    x = world.containers.get("one").id
    await world.containers.start(y)
    world.runtime.living |= {x: world.task(x), y: world.task(y)}
    instance = world.store.find(y)
    lost = replace_state(instance.container)
    world.store.update(instance, lost)
    os.makedirs(world.paths.bundle(y), exist_ok=True)
    await world.restart_daemon()
    found = world.containers.get(y)
    assert found.state.running
    assert found.network.networks == {}
    assert found.hosts_path == world.containers.get(x).hosts_path


def replace_state(container: Any) -> Any:
    """The container as it was before its start."""
    from msgspec.structs import replace as changed

    from sampan.engine.model import ContainerState

    home = f"/nowhere/{container.id}"
    return changed(container, state=ContainerState(), hosts_path=f"{home}/hosts")


@pytest.mark.parametrize("field", ["network_mode", "pid_mode", "ipc_mode"])
async def test_what_is_joined_must_run(world: World, field: str) -> None:
    x = await world.create("sleep", name="one")
    words = {
        "network_mode": f"cannot join network of a non running container: {x}",
        "pid_mode": f"container {x} is not running",
        "ipc_mode": f"can't join IPC of container {x}: container {x} is not running",
    }
    y = await world.create("sleep", name="two", **{field: "container:one"})
    assert getattr(world.containers.get(y).host, field) == f"container:{x}"
    with pytest.raises(Conflict) as caught:
        await world.containers.start(y)
    assert str(caught.value) == words[field]


async def test_what_is_joined_must_be_there(world: World) -> None:
    for field in ("pid_mode", "ipc_mode"):
        with pytest.raises(InvalidArgument, match="No such container: nope"):
            await world.create("sleep", **{field: "container:nope"})
    await world.create("sleep", name="two", network_mode="container:nope")
    with pytest.raises(NotFound, match="No such container: nope"):
        await world.containers.start("two")


async def test_ids_of_the_host_are_passed_on(world: World) -> None:
    x = await world.run("sleep", name="one", privileged=True)
    await world.run("sleep", name="two", network_mode="container:one")
    assert users(world, "two") == (0, 0, f"container {x[:12]}, which it joins, has them")
    assert all(one["type"] != "user" for one in world.runtime.launches[-1].spec["linux"]["namespaces"])


async def test_a_debugger_with_all_privileges_joins_without_the_ids(world: World) -> None:
    await world.run("sleep", name="one")
    await world.run("sleep", name="two", pid_mode="container:one", privileged=True)
    assert users(world, "two") == (0, 0, "--privileged")


async def test_what_the_launcher_found_is_recorded_and_the_range_given_back(world: World) -> None:
    await world.create("sleep", name="one")
    launch = world.runtime.launch

    async def fall_back(*arguments: Any) -> Any:
        task = await launch(*arguments)
        task.host_ids = "/b cannot be given a container's own user ids"
        return task

    world.runtime.launch = fall_back  # type: ignore[method-assign,assignment]
    await world.containers.start("one")
    assert users(world, "one") == (0, 0, "/b cannot be given a container's own user ids")
    first = users(world, await world.run("sleep", "1", name="other"))
    assert first[0] == 0


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ({"userns_mode": "host"}, "--userns host"),
        ({"privileged": True}, "--privileged"),
        ({"network_mode": "host"}, "--network host"),
        ({"pid_mode": "host"}, "--pid host"),
        ({"ipc_mode": "host"}, "--ipc host"),
        ({"uts_mode": "host"}, ""),
        ({"uts_mode": "host", "cap_add": ("SYS_ADMIN",)}, "--uts host with --cap-add SYS_ADMIN"),
        ({"cap_add": ("sys_nice",)}, "--cap-add SYS_NICE"),
        ({"cap_add": ("SYS_ADMIN", "NET_ADMIN")}, ""),
        ({"group_add": ("2147483647",)}, "it has to do with user id 2147483647, which no range"),
    ],
)
async def test_reasons(tmp_path: Any, host: dict[str, Any], reason: str) -> None:
    world = World(str(tmp_path))
    await world.create("sleep", name="one", **host)
    assert users(world, "one")[2].startswith(reason)
    assert bool(users(world, "one")[2]) is bool(reason)
    world.close()
    strict = World(str(tmp_path / "strict"), options=EngineOptions(userns_fallback="deny"))
    if reason:
        with pytest.raises(Forbidden, match=f"^{reason}"):
            await strict.create("sleep", **host)
    else:
        await strict.create("sleep", **host)
    strict.close()


async def test_a_host_that_cannot_do_it(tmp_path: Any) -> None:
    world = World(str(tmp_path), facts=replace(FACTS, idmaps=IdMaps(lacking="this kernel is old")))
    await world.run("sleep", name="one")
    assert users(world, "one") == (0, 0, "this kernel is old")
    world.close()


async def test_the_engines_default_is_no_exception(tmp_path: Any) -> None:
    world = World(str(tmp_path), options=EngineOptions(userns="host", userns_fallback="deny"))
    await world.run("sleep", name="one")
    assert users(world, "one") == (0, 0, "the engine's default")
    await world.run("sleep", name="two", userns_mode="private")
    assert users(world, "two")[1] == 65536
    world.close()

"""Links between containers on the default bridge, and what they tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakes.engine import World

from sampan.engine import links
from sampan.engine.model import Container, ContainerConfig, EndpointSettings, HostConfig, NetworkSettings
from sampan.errors import Conflict, InvalidArgument, NotFound


def child(*ports: str, env: tuple[str, ...] = ()) -> Container:
    config = ContainerConfig(hostname="box", exposed_ports={port: {} for port in ports}, env=env)
    networks = {"bridge": EndpointSettings(ip_address="10.0.0.2", endpoint_id="e")}
    return Container(
        id="c" * 64,
        name="db",
        created=0,
        path="sleep",
        args=(),
        image_id="",
        config=config,
        host=HostConfig(),
        network=NetworkSettings(networks=networks),
    )


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("db", ("db", "db")),
        ("db:sql", ("db", "sql")),
        ("db:", ("db", "")),
        ("/db:/web/sql", ("/db", "sql")),
    ],
)
def test_links_are_read_as_docker_writes_them(text: str, pair: tuple[str, str]) -> None:
    assert links.parse(text) == pair


@pytest.mark.parametrize("text", ["", "a:b:c"])
def test_what_is_no_link_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        links.parse(text)


def test_variables_tell_of_ports_and_environment() -> None:
    found = links.variables(
        "/web/my-db", "my-db", "10.0.0.2", child("53/udp", "80/tcp", env=("A=b", "PATH=/x", "C"))
    )
    assert found["MY_DB_PORT"] == "udp://10.0.0.2:53"
    assert found["MY_DB_PORT_80_TCP"] == "tcp://10.0.0.2:80"
    assert found["MY_DB_PORT_80_TCP_PORT"] == "80"
    assert found["MY_DB_NAME"] == "/web/my-db"
    assert found["MY_DB_ENV_A"] == "b"
    assert not {"MY_DB_ENV_PATH", "MY_DB_ENV_C"} & found.keys()
    assert not any("START" in name for name in found)


def test_ports_in_a_row_are_a_range_too() -> None:
    found = links.variables(
        "/web/db", "db", "10.0.0.2", child("8000/tcp", "8001/tcp", "8002/tcp", "8003/tcp", "9/tcp")
    )
    assert found["DB_PORT_8000_TCP_START"] == "tcp://10.0.0.2:8000"
    assert found["DB_PORT_8000_TCP_END"] == "tcp://10.0.0.2:8003"
    assert (found["DB_PORT_8000_TCP_PORT_START"], found["DB_PORT_8000_TCP_PORT_END"]) == ("8000", "8003")
    assert found["DB_PORT_8002_TCP_PROTO"] == "tcp"


async def test_a_link_lives_with_both_containers(world: World) -> None:
    db = await world.run(name="db")
    web = await world.create(name="web", links=("db:sql", "db"))
    assert world.containers.get(web).host.links == ("/db:/web/db", "/db:/web/sql")
    assert world.containers.get("web/sql").id == db
    assert sorted(world.containers.link_names()[db]) == ["/web/db", "/web/sql"]

    await world.containers.start(web)
    running = world.containers.get(web)
    address = world.containers.get(db).network.networks["bridge"].ip_address
    assert "SQL_NAME=/web/sql" in running.network.link_env
    assert f"{address}\tsql {db[:12]} db\n" in Path(running.hosts_path).read_text()

    await world.containers.rename("db", "base")
    assert world.containers.get(web).host.links == ("/base:/web/db", "/base:/web/sql")
    await world.containers.restart(db, timeout=0)
    again = world.containers.get(db).network.networks["bridge"].ip_address
    assert f"{again}\tsql " in Path(running.hosts_path).read_text()

    world.containers.remove_link("/web/sql")
    assert world.containers.get(web).host.links == ("/base:/web/db",)
    assert "\tsql " not in Path(running.hosts_path).read_text()


async def test_a_linked_container_must_run(world: World) -> None:
    db = await world.create(name="db")
    await world.create(name="web", links=("db:sql",))
    with pytest.raises(Conflict, match="Cannot link to a non running container: /db AS /web/sql"):
        await world.containers.start("web")
    await world.containers.remove(db)
    with pytest.raises(Conflict, match=f"Cannot link to a non running container: /{db[:12]} AS /web/sql"):
        await world.containers.start("web")
    assert world.containers.link_names() == {db: ["/web/sql"]}


async def test_a_linked_container_must_be_on_the_default_network(world: World) -> None:
    await world.run(name="db", network_mode="none")
    await world.create(name="web", links=("db",))
    with pytest.raises(Conflict, match="Cannot link to /db, as it does not belong to the default network"):
        await world.containers.start("web")


async def test_what_cannot_be_linked(world: World) -> None:
    with pytest.raises(InvalidArgument, match="could not get container for other: No such container: other"):
        await world.create(links=("other",))
    with pytest.raises(InvalidArgument, match="could not get container for : invalid name"):
        await world.create(links=(":x",))
    with pytest.raises(InvalidArgument, match="host type networking can't be used with links"):
        await world.create(links=("other",), network_mode="host")
    await world.run(name="db")
    for ref in ("db/x", "other/x"):
        with pytest.raises(NotFound, match=f"No such container: {ref}"):
            world.containers.remove_link(ref)
    with pytest.raises(Conflict, match="cannot remove the default link name of the container"):
        world.containers.remove_link("db")

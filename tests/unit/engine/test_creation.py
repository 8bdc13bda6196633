"""Create: what is refused, in which words, and what a created container looks like."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from msgspec.structs import replace
from tests.fakes.engine import FACTS, World

from sampan.engine import validation
from sampan.engine.host import HostFacts
from sampan.engine.model import (
    ContainerConfig,
    EndpointIPAMConfig,
    EndpointSettings,
    HealthConfig,
    HostConfig,
    ListQuery,
    LogConfig,
    Mount,
    NetworkingConfig,
    RestartPolicy,
    Ulimit,
)
from sampan.errors import Conflict, Failure, InvalidArgument, NotFound
from sampan.spec.image import RunConfig

PLAIN = ContainerConfig(image="base", cmd=("sleep",))
NO_NETWORK = NetworkingConfig()


async def create(world: World, config: ContainerConfig = PLAIN, name: str | None = None, **host: Any) -> str:
    return (await world.containers.create(name, config, HostConfig(**host), NO_NETWORK)).id


async def test_a_created_container_has_dockers_defaults(world: World) -> None:
    web = world.containers.get(await create(world))
    assert len(web.id) == 64
    assert web.config.hostname == web.id[:12]
    assert (web.path, web.args) == ("sleep", ())
    assert web.host.network_mode == "bridge"
    assert web.host.shm_size == 64 << 20
    assert (web.host.log_config.type, web.host.ipc_mode, web.host.cgroupns_mode) == (
        "json-file",
        "private",
        "private",
    )
    assert "/proc/kcore" in (web.host.masked_paths or ())
    assert web.log_path.endswith(f"/containers/{web.id}/{web.id}-json.log")
    assert list(web.network.networks) == ["bridge"]
    assert "_" in web.name


async def test_privileged_masks_nothing_and_the_hosts_network_brings_its_name(world: World) -> None:
    web = world.containers.get(await create(world, privileged=True, network_mode="host"))
    assert web.host.masked_paths is None
    assert web.config.hostname == FACTS.hostname


async def test_memory_brings_twice_as_much_with_swap(world: World) -> None:
    web = world.containers.get(await create(world, memory=64 << 20))
    assert web.host.memory_swap == 128 << 20


class TestCommand:
    @pytest.mark.parametrize(
        ("entrypoint", "cmd", "expected"),
        [
            (None, None, ("/entry", "default")),
            (None, ("given",), ("/entry", "given")),
            (("own",), None, ("own",)),
            (("own",), ("given",), ("own", "given")),
            (("",), ("given",), ("given",)),
            ((), ("given",), ("given",)),
        ],
    )
    async def test_entrypoint_and_command_follow_dockers_rules(
        self,
        world: World,
        entrypoint: tuple[str, ...] | None,
        cmd: tuple[str, ...] | None,
        expected: tuple[str, ...],
    ) -> None:
        world.catalog.add("app", RunConfig(entrypoint=("/entry",), cmd=("default",)))
        config = ContainerConfig(image="app", entrypoint=entrypoint, cmd=cmd)
        web = world.containers.get(await create(world, config))
        assert (web.path, *web.args) == expected

    @pytest.mark.parametrize("entrypoint", [None, ("",)])
    async def test_nothing_to_run_is_refused(self, world: World, entrypoint: tuple[str, ...] | None) -> None:
        world.catalog.add("empty", RunConfig())
        with pytest.raises(InvalidArgument, match="no command specified"):
            await create(world, ContainerConfig(image="empty", entrypoint=entrypoint))

    async def test_the_image_fills_what_the_user_left_open(self, world: World) -> None:
        world.catalog.add(
            "app",
            RunConfig(
                cmd=("serve",),
                user="www",
                env=("A=image", "B=image"),
                working_dir="/srv",
                labels={"x": "image", "y": "image"},
                stop_signal="SIGQUIT",
                exposed_ports=("80/tcp",),
                healthcheck={"Test": ["CMD", "check"], "Interval": 5},
            ),
        )
        config = ContainerConfig(image="app", env=("A=own",), labels={"x": "own"})
        web = world.containers.get(await create(world, config)).config
        assert web.env == ("A=own", "B=image")
        assert web.labels == {"x": "own", "y": "image"}
        assert (web.user, web.working_dir, web.stop_signal) == ("www", "/srv", "SIGQUIT")
        assert web.exposed_ports == {"80/tcp": {}}
        assert web.healthcheck == HealthConfig(test=("CMD", "check"), interval=5)


class TestNames:
    async def test_a_taken_name_is_refused_in_dockers_words(self, world: World) -> None:
        first = await create(world, name="web")
        with pytest.raises(Conflict) as refused:
            await create(world, name="/web")
        assert str(refused.value) == (
            f'Conflict. The container name "/web" is already in use by container "{first}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )

    @pytest.mark.parametrize("name", ["-a", "a", "a b", "a/b", "ä", "web\n"])
    async def test_a_malformed_name_is_refused(self, world: World, name: str) -> None:
        with pytest.raises(InvalidArgument, match="Invalid container name"):
            await create(world, name=name)

    async def test_references_are_ids_names_and_unique_prefixes(self, world: World) -> None:
        web = await create(world, name="web")
        await create(world)
        for ref in (web, web[:12], web[:20], "web", "/web"):
            assert world.containers.get(ref).id == web
        with pytest.raises(NotFound, match="No such container: nope"):
            world.containers.get("nope")
        with pytest.raises(NotFound):
            world.containers.get("")

    async def test_an_ambiguous_prefix_is_refused(self, world: World) -> None:
        ids = [await create(world) for _ in range(17)]  # two share their first digit
        first = next(a[0] for n, a in enumerate(ids) if a[0] in {b[0] for b in ids[:n]})
        with pytest.raises(InvalidArgument, match="multiple IDs found with provided prefix"):
            world.containers.get(first)

    async def test_rename_frees_the_old_name_and_is_told(self, world: World) -> None:
        web = await create(world, name="web")
        subscription = world.events.subscribe()
        await world.containers.rename("web", "front")
        subscription.close()
        told = [event async for event in subscription]
        assert told[0].attributes["oldName"] == "/web"
        assert told[0].attributes["name"] == "front"
        assert world.containers.get("front").id == web
        await create(world, name="web")
        with pytest.raises(Conflict):
            await world.containers.rename("front", "web")
        with pytest.raises(InvalidArgument, match="same name"):
            await world.containers.rename("front", "front")
        assert world.containers.get("front").id == web


REFUSED_HOSTS: list[tuple[dict[str, Any], str]] = [
    ({"memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
    (
        {"memory": 64 << 20, "memory_swap": 32 << 20},
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    ),
    ({"memory_swap": 64 << 20}, "You should always set the Memory limit when using Memoryswap limit"),
    ({"memory_swappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
    ({"memory_reservation": 5}, "Minimum memory reservation allowed is 6MB"),
    (
        {"memory": 8 << 20, "memory_reservation": 9 << 20},
        "Minimum memory limit can not be less than memory reservation limit, see usage",
    ),
    ({"nano_cpus": 3_000_000_000}, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
    ({"nano_cpus": 1, "cpu_period": 1000}, "Nano CPUs and CPU Period cannot both be set"),
    ({"nano_cpus": 1, "cpu_quota": 1000}, "Nano CPUs and CPU Quota cannot both be set"),
    ({"cpu_period": 10}, "CPU cfs period can not be less than 1ms"),
    ({"cpu_quota": 10}, "CPU cfs quota can not be less than 1ms"),
    ({"cpuset_cpus": "0-5"}, "Requested CPUs are not available - requested 0-5, available: 0-1"),
    ({"cpuset_cpus": "x"}, "Invalid value x for cpuset cpus"),
    ({"cpuset_mems": "1"}, "Requested memory nodes are not available - requested 1, available: 0"),
    ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
    ({"oom_score_adj": 1001}, "Invalid value 1001, range for oom score adj is"),
    ({"shm_size": -1}, "SHM size can not be less than 0"),
    ({"ipc_mode": "odd"}, "invalid IPC mode: odd"),
    ({"pid_mode": "odd"}, "invalid PID mode: odd"),
    ({"uts_mode": "odd"}, "invalid UTS mode: odd"),
    ({"cgroupns_mode": "odd"}, "invalid cgroup namespace mode: odd"),
    ({"userns_mode": "odd"}, "invalid user namespace mode: odd"),
    ({"runtime": "odd"}, "unknown or invalid runtime name: odd"),
    ({"cap_add": ("odd",)}, 'invalid CapAdd: unknown capability: "CAP_ODD"'),
    ({"cap_drop": ("odd",)}, 'invalid CapDrop: unknown capability: "CAP_ODD"'),
    ({"restart_policy": RestartPolicy(name="odd")}, "invalid restart policy: unknown policy 'odd'"),
    (
        {"auto_remove": True, "restart_policy": RestartPolicy(name="always")},
        "can't create 'AutoRemove' container with restart policy",
    ),
    ({"security_opt": ("odd",)}, 'invalid --security-opt 1: "odd"'),
    ({"security_opt": ("odd=1",)}, 'invalid --security-opt 2: "odd=1"'),
    ({"security_opt": ("seccomp={",)}, "decoding seccomp profile failed"),
    ({"log_config": LogConfig(config={"odd": "1"})}, "unknown log opt 'odd' for json-file log driver"),
    ({"log_config": LogConfig(config={"max-file": "0"})}, "max-file cannot be less than 1"),
    ({"device_cgroup_rules": ("odd",)}, "invalid device cgroup rule format: 'odd'"),
    ({"log_config": LogConfig(type="odd")}, 'error looking up logging plugin odd: plugin "odd" not found'),
    ({"cpu_shares": 1}, "the minimum allowed cpu-shares is 2"),
    ({"binds": ("/a:/proc",)}, '"/proc" cannot be mounted because it is not of type proc'),
    ({"tmpfs": {"/proc/sys": ""}}, '"/proc/sys" cannot be mounted because it is inside /proc'),
    ({"tmpfs": {"/": ""}}, "invalid specification: destination can't be '/'"),
    ({"binds": ("a:b:c:d",)}, "invalid volume specification: 'a:b:c:d'"),
    ({"binds": ("/a:b",)}, "invalid mount path: 'b' mount path must be absolute"),
    ({"binds": ("/a:/",)}, "destination can't be '/'"),
    ({"binds": ("/a:/b:odd",)}, "invalid mode: odd"),
    ({"binds": ("a$:/b",)}, "includes invalid characters for a local volume name"),
    ({"binds": ("/a:/b", "/c:/b/")}, "Duplicate mount point: /b"),
    (
        {"mounts": (Mount(type="odd", target="/b"),)},
        'invalid mount config for type "odd": mount type unknown',
    ),
    ({"mounts": (Mount(type="bind", source="/nowhere/at/all", target="/b"),)}, "bind source path does not"),
    ({"mounts": (Mount(type="volume", source="v", target="b"),)}, "mount path must be absolute"),
    ({"mounts": (Mount(type="tmpfs", source="v", target="/b"),)}, "field Source must not be specified"),
    ({"tmpfs": {"/t": "odd=1"}}, 'invalid tmpfs option ["odd" "1"]'),
    ({"dns": ("odd",)}, "bad nameserver address odd"),
    ({"extra_hosts": ("odd",)}, 'bad format for add-host: "odd"'),
    ({"cgroup_parent": "/a/../../b"}, "invalid cgroup-parent: /a/../../b"),
    ({"cgroup_parent": "a" * 256}, "invalid cgroup-parent: aaa"),
    ({"cgroup_parent": "a\tb"}, "invalid cgroup-parent: a\tb"),
    ({"masked_paths": ("/a\0b",)}, "invalid path: it contains a null character"),
    ({"readonly_paths": ("/a\0b",)}, "invalid path: it contains a null character"),
    ({"binds": ("/a\0b:/c",)}, "invalid mount: it contains a null character"),
    ({"ulimits": (Ulimit(name="odd"),)}, "invalid ulimit type: odd"),
    ({"ulimits": (Ulimit(name="core", soft=2, hard=1),)}, "ulimit soft limit must be less than or equal"),
    ({"sysctls": {"kernel.core_pattern": "x"}}, "is not in a separate kernel namespace"),
    ({"sysctls": {"net/../kernel.x": "x"}}, "is not in a separate kernel namespace"),
    ({"sysctls": {"net.a.b": "1"}, "network_mode": "host"}, "not allowed in host network namespace"),
    ({"sysctls": {"kernel.sem": "1"}, "ipc_mode": "host"}, "not allowed in the hosts ipc namespace"),
]


@pytest.mark.parametrize(("host", "words"), REFUSED_HOSTS)
async def test_a_refused_request_changes_nothing(world: World, host: dict[str, Any], words: str) -> None:
    with pytest.raises(Failure) as refused:
        await create(world, name="web", **host)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert await world.containers.list(ListQuery(all=True)) == []
    assert not world.snapshots.there
    assert not world.volumes.there
    await create(world, name="web")


HARMLESS: list[dict[str, Any]] = [
    {"restart_policy": RestartPolicy(name="no")},
    {"port_bindings": {}},
    {"annotations": {"a": "b"}},
    {"security_opt": ("label=disable", "apparmor=unconfined", "seccomp=unconfined")},
    {"log_config": LogConfig(type="json-file", config={"max-size": "1k", "max-file": "2"})},
    {"memory_swappiness": -1},
    {"sysctls": {"net.core.somaxconn": "1", "kernel.shmmax": "1", "fs.mqueue.msg_max": "1"}},
    {"network_mode": "host", "port_bindings": {"80/tcp": None}},
]


@pytest.mark.parametrize("host", HARMLESS)
async def test_harmless_values_of_the_same_fields_pass(world: World, host: dict[str, Any]) -> None:
    await create(world, **host)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (replace(PLAIN, working_dir="srv"), "the working directory 'srv' is invalid"),
        (replace(PLAIN, env=("=x",)), "invalid environment variable: =x"),
        (replace(PLAIN, stop_signal="ODD"), "invalid signal: ODD"),
        (replace(PLAIN, image="nope"), "No such image: nope:latest"),
        (replace(PLAIN, hostname="a/b"), "invalid hostname format: 'a/b'"),
        (replace(PLAIN, domainname="a\nb"), "invalid domainname format"),
        (replace(PLAIN, mac_address="odd"), "invalid MAC address: odd"),
        (replace(PLAIN, cmd=("a\0b",)), "invalid command: it contains a null character"),
    ],
)
async def test_a_bad_configuration_is_refused(world: World, config: ContainerConfig, words: str) -> None:
    with pytest.raises(Failure) as refused:
        await create(world, config)
    assert words in str(refused.value)


async def test_a_static_address_needs_a_network_of_the_users_own(world: World) -> None:
    asked = NetworkingConfig(
        endpoints_config={"bridge": EndpointSettings(ipam_config=EndpointIPAMConfig(ipv4_address="10.0.0.1"))}
    )
    with pytest.raises(InvalidArgument, match="supported on user defined networks only"):
        await world.containers.create(None, PLAIN, HostConfig(), asked)


async def test_an_address_asked_for_reaches_the_bridge_and_is_kept(world: World) -> None:
    asked = NetworkingConfig(endpoints_config={"default": EndpointSettings(mac_address="02:00:00:00:00:01")})
    web = (await world.containers.create(None, PLAIN, HostConfig(), asked)).id
    await world.containers.start(web)
    assert world.bridges.connected[web].mac == "02:00:00:00:00:01"


async def test_a_host_without_swap_accounting_discards_and_warns(tmp_path: Any) -> None:
    facts: HostFacts = HostFacts(
        **{name: getattr(FACTS, name) for name in FACTS.__slots__} | {"swap_limit": False}
    )
    world = World(str(tmp_path), facts=facts)
    created = await world.containers.create(None, PLAIN, HostConfig(memory=64 << 20), NO_NETWORK)
    assert "swap limit capabilities" in created.warnings[0]
    assert world.containers.get(created.id).host.memory_swap == -1
    world.close()


class TestVolumes:
    async def test_named_and_anonymous_volumes_are_made_and_filled_from_the_image(self, world: World) -> None:
        world.catalog.add("db", RunConfig(cmd=("db",), volumes=("/data", "/log")))
        config = ContainerConfig(image="db", volumes={"/own": {}})
        web = await create(world, config, binds=("named:/etc/db:ro", "/srv:/log"))
        points = {point.destination: point for point in world.containers.get(web).mounts}
        assert points["/etc/db"].name == "named"
        assert not points["/etc/db"].rw
        assert points["/log"].type == "bind"
        assert points["/data"].anonymous
        assert points["/own"].anonymous
        assert sorted(path for _, path in world.volumes.populated) == ["/data", "/etc/db", "/own"]

    async def test_removal_takes_anonymous_volumes_when_asked_and_named_never(self, world: World) -> None:
        web = await create(world, binds=("named:/a", "/b"))
        other = await create(world, binds=("/b",))
        await world.containers.remove(other)
        assert len(world.volumes.there) == 3
        await world.containers.remove(web, volumes=True)
        assert "named" in world.volumes.there
        assert len(world.volumes.there) == 2

    async def test_a_failed_create_takes_its_anonymous_volumes_back(self, world: World) -> None:
        world.snapshots.refuse = "no space left on device"
        with pytest.raises(Conflict):
            await create(world, name="web", binds=("/b",))
        assert not world.volumes.there
        world.snapshots.refuse = None
        await create(world, name="web")

    async def test_users_of_images_and_volumes_are_known(self, world: World) -> None:
        web = await create(world, name="web", binds=("named:/a",))
        image = world.containers.get(web).image_id
        assert world.lookups.users_of_volume("named") == [web]
        assert [use.name for use in world.lookups.users_of_image(image)] == ["web"]


def test_forwarding_is_looked_at_for_each_container() -> None:
    forwards = [False]
    facts = dataclasses.replace(FACTS, ip_forwarding=lambda: forwards[0])

    def warnings() -> list[str]:
        config, host = ContainerConfig(image="base", cmd=("true",)), HostConfig(network_mode="bridge")
        return list(validation.check(config, host, NetworkingConfig(), facts)[1])

    assert warnings() == ["IPv4 forwarding is disabled. Networking will not work."]
    forwards[0] = True  # as the engine does when it makes its bridge
    assert warnings() == []

"""From a container to its OCI specification and launch request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from tests.fakes.engine import World

from sampan.engine import capabilities, devices, mounts, oci
from sampan.engine.model import (
    BindOptions,
    ContainerConfig,
    DeviceMapping,
    ExecConfig,
    HostConfig,
    LogConfig,
    Mount,
    NetworkingConfig,
    TmpfsOptions,
    Ulimit,
)
from sampan.engine.options import EngineOptions
from sampan.errors import InvalidArgument
from sampan.sandbox.messages import Launch
from sampan.spec.runtime import ALL_CAPABILITIES, DEFAULT_CAPABILITIES

if TYPE_CHECKING:
    from sampan.spec.runtime import Spec

PLAIN = ContainerConfig(image="base", cmd=("sleep", "5"))


async def launch(world: World, config: ContainerConfig = PLAIN, **host: Any) -> Launch:
    created = await world.containers.create("web", config, HostConfig(**host), NetworkingConfig())
    await world.containers.start(created.id)
    return world.runtime.launches[-1]


def mount_at(spec: Spec, destination: str) -> dict[str, Any]:
    found = [mount for mount in spec["mounts"] if mount["destination"] == destination]
    assert len(found) == 1
    return dict(found[0])


def kinds(spec: Spec) -> set[str]:
    return {namespace["type"] for namespace in spec["linux"]["namespaces"]}


async def test_a_plain_container(world: World) -> None:
    request = await launch(world)
    spec = request.spec
    container_id = request.id
    assert spec["process"]["args"] == ["sleep", "5"]
    assert spec["process"]["env"] == ["PATH=/bin", f"HOSTNAME={container_id[:12]}"]
    assert spec["process"]["cwd"] == "/"
    assert spec["hostname"] == container_id[:12]
    assert kinds(spec) == {"mount", "network", "uts", "pid", "ipc", "cgroup", "user"}
    assert spec["process"]["capabilities"]["bounding"] == list(DEFAULT_CAPABILITIES)
    assert spec["linux"]["cgroupsPath"] == f"/sampan/{container_id}"
    assert mount_at(spec, "/etc/hosts")["source"].endswith(f"{container_id}/hosts")
    assert request.endpoint is not None
    assert request.seccomp_filter == "/seccomp/default.bpf"
    assert request.bundle == world.paths.bundle(container_id)
    assert request.log is not None
    assert (request.log.max_size, request.log.max_files) == (50_000_000, 5)
    assert request.user == ""


async def test_the_files_of_its_name(world: World) -> None:
    config = replace(PLAIN, hostname="web", domainname="example.org")
    request = await launch(
        world, config, extra_hosts=("db:10.0.0.5",), dns=("10.0.0.1",), dns_search=("a.b",)
    )
    with open(world.containers.get("web").hosts_path, encoding="utf-8") as file:
        hosts = file.read()
    with open(world.containers.get("web").resolv_conf_path, encoding="utf-8") as file:
        resolv = file.read()
    with open(world.containers.get("web").hostname_path, encoding="utf-8") as file:
        assert file.read() == "web\n"
    assert "10.0.0.5\tdb\n" in hosts
    assert hosts.endswith("172.17.0.2\tweb.example.org web\n")
    assert "nameserver 10.0.0.1\n" in resolv
    assert "search a.b\n" in resolv
    assert request.spec["domainname"] == "example.org"


async def test_environment_order_and_removal(world: World) -> None:
    config = replace(PLAIN, tty=True, env=("A=1", "TERM=dumb", "HOSTNAME", "A=2"))
    spec = (await launch(world, config)).spec
    assert spec["process"]["env"] == ["PATH=/bin", "TERM=dumb", "A=2"]
    assert spec["process"]["terminal"] is True


async def test_host_namespaces(world: World) -> None:
    request = await launch(world, network_mode="host", pid_mode="host", ipc_mode="host", uts_mode="host")
    assert kinds(request.spec) == {"mount", "cgroup"}
    assert request.endpoint is None
    assert mount_at(request.spec, "/dev/shm")["type"] == "bind"
    assert mount_at(request.spec, "/dev/mqueue")["type"] == "mqueue"  # shows the host's queues by itself
    assert "sysctl" not in request.spec["linux"]


async def test_no_network_is_a_namespace_with_nothing_in_it(world: World) -> None:
    request = await launch(world, network_mode="none")
    assert request.endpoint is None
    assert "network" in kinds(request.spec)


async def test_privileged_opens_what_the_defaults_close(world: World) -> None:
    request = await launch(world, privileged=True)
    linux = request.spec["linux"]
    assert request.seccomp_filter is None
    assert linux["maskedPaths"] == []
    assert linux["readonlyPaths"] == []
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "ro" not in mount_at(request.spec, "/sys")["options"]
    held = request.spec["process"]["capabilities"]["bounding"]
    assert set(held) == capabilities.held_by_daemon()


async def test_limits(world: World) -> None:
    spec = (
        await launch(
            world,
            memory=64 << 20,
            nano_cpus=500_000_000,
            pids_limit=50,
            cpu_shares=512,
            cpuset_cpus="0",
            memory_reservation=32 << 20,
            ulimits=(Ulimit(name="nofile", soft=100, hard=200), Ulimit(name="core", soft=-1, hard=-1)),
            oom_score_adj=7,
            shm_size=1 << 20,
        )
    ).spec
    limits = spec["linux"]["resources"]
    assert limits["memory"] == {"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20}
    assert limits["cpu"] == {"shares": 512, "period": 100_000, "quota": 50_000, "cpus": "0"}
    assert limits["pids"] == {"limit": 50}
    assert spec["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": (1 << 64) - 1, "hard": (1 << 64) - 1},
    ]
    assert spec["process"]["oomScoreAdj"] == 7
    assert f"size={1 << 20}" in mount_at(spec, "/dev/shm")["options"]


async def test_unlimited_pids_are_said_so(world: World) -> None:
    limits = (await launch(world, pids_limit=-1)).spec["linux"]["resources"]
    assert limits["pids"] == {"limit": -1}


async def test_mounts_are_made_by_depth_and_replace_the_defaults(world: World, tmp_path: Any) -> None:
    deep, shallow = tmp_path / "deep", tmp_path / "shallow"
    spec = (
        await launch(
            world,
            binds=(f"{deep}:/a/b/c:ro", f"{shallow}:/a", "vol:/v", f"{shallow}:/dev/shm", "/:/host:rslave"),
            tmpfs={"/run": "size=1m,exec"},
            mounts=(
                Mount(
                    type="bind",
                    source=str(tmp_path),
                    target="/m",
                    read_only=True,
                    bind_options=BindOptions(propagation="rslave", read_only_non_recursive=True),
                ),
                Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o700)),
            ),
        )
    ).spec
    order = [mount["destination"] for mount in spec["mounts"]]
    assert order.index("/a") < order.index("/a/b/c")
    assert order.index("/proc") < order.index("/a")
    assert mount_at(spec, "/a/b/c")["options"] == ["rbind", "rprivate", "rro"]
    # Its source is around the engine's own directory, which is bound privately where it cannot follow.
    assert mount_at(spec, "/m")["options"] in (["rbind", "rslave", "ro"], ["rbind", "rprivate", "ro"])
    assert mount_at(spec, "/v")["source"] == "/volumes/vol/_data"
    assert mount_at(spec, "/run")["options"] == ["nosuid", "nodev", "size=1m", "exec"]
    assert mount_at(spec, "/t")["options"] == ["noexec", "nosuid", "nodev", "mode=700", "size=4096"]
    assert mount_at(spec, "/dev/shm")["type"] == "bind"
    assert spec["linux"].get("rootfsPropagation") in ("slave", None)
    assert deep.is_dir()  # made, as -v does


async def test_a_dev_of_the_users_own_replaces_all_below_it(world: World, tmp_path: Any) -> None:
    spec = (await launch(world, binds=(f"{tmp_path}:/dev",))).spec
    assert not [mount for mount in spec["mounts"] if mount["destination"].startswith("/dev/")]


async def test_the_users_own_files_stand_before_the_engines(world: World, tmp_path: Any) -> None:
    (tmp_path / "hosts").write_text("")
    spec = (await launch(world, binds=(f"{tmp_path}/hosts:/etc/hosts",))).spec
    assert mount_at(spec, "/etc/hosts")["source"] == f"{tmp_path}/hosts"


async def test_a_source_that_cannot_be_made_fails_the_start(world: World, tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidArgument, match="error while creating mount source path"):
        await launch(world, binds=(f"{tmp_path}/file/below:/a",))
    assert not world.bridges.connected


async def test_devices(world: World) -> None:
    spec = (
        await launch(
            world,
            devices=(
                DeviceMapping(path_on_host="/dev/null", path_in_container="/dev/nil", cgroup_permissions="r"),
            ),
            device_cgroup_rules=("c 10:* rwm",),
        )
    ).spec
    node = next(node for node in spec["linux"]["devices"] if node["path"] == "/dev/nil")
    assert (node["type"], node["major"], node["minor"]) == ("c", 1, 3)
    assert spec["linux"]["resources"]["devices"][-2:] == [
        {"allow": True, "type": "c", "access": "r", "major": 1, "minor": 3},
        {"allow": True, "type": "c", "access": "rwm", "major": 10},
    ]


async def test_a_device_that_is_not_there_fails_the_start_in_dockers_words(world: World) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await launch(world, devices=(DeviceMapping(path_on_host="/dev/nowhere"),))
    assert str(refused.value) == (
        'error gathering device information while adding custom device "/dev/nowhere": '
        "no such file or directory"
    )


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), list(DEFAULT_CAPABILITIES)),
        (("ALL",), ("CAP_SYS_ADMIN",), [name for name in ALL_CAPABILITIES if name != "CAP_SYS_ADMIN"]),
        (("CAP_SYS_ADMIN", "CAP_CHOWN"), ("ALL",), ["CAP_CHOWN", "CAP_SYS_ADMIN"]),
        (("CAP_SYS_TIME",), ("CAP_MKNOD",), None),
    ],
)
def test_capabilities(add: tuple[str, ...], drop: tuple[str, ...], expected: list[str] | None) -> None:
    held = capabilities.effective(privileged=False, add=add, drop=drop)
    if expected is None:
        expected = [name for name in DEFAULT_CAPABILITIES if name != "CAP_MKNOD"] + ["CAP_SYS_TIME"]
    assert held == expected


def test_capability_names_are_read_as_docker_does() -> None:
    assert capabilities.normalize(("net_admin", "CAP_chown", "all"), flag="CapAdd") == (
        "CAP_NET_ADMIN",
        "CAP_CHOWN",
        "ALL",
    )


async def test_security_options(world: World) -> None:
    request = await launch(world, security_opt=("no-new-privileges", "seccomp=unconfined"))
    assert request.spec["process"]["noNewPrivileges"] is True
    assert request.seccomp_filter is None


async def test_a_profile_of_the_users_own(world: World) -> None:
    request = await launch(world, security_opt=('seccomp={"defaultAction": "SCMP_ACT_ALLOW"}',))
    assert request.seccomp_filter == "/seccomp/own.bpf"


async def test_launch_options(world: World) -> None:
    config = replace(PLAIN, user="www:data", open_stdin=True, stdin_once=True)
    request = await launch(
        world,
        config,
        init=True,
        group_add=("audio",),
        console_size=(24, 80),
        log_config=LogConfig(type="none"),
        readonly_rootfs=True,
        sysctls={"net.core.somaxconn": "1"},
    )
    assert (request.user, request.group_add) == ("www:data", ("audio",))
    assert (request.open_stdin, request.stdin_once, request.init) == (True, True, True)
    assert request.console_size == (24, 80)
    assert request.log is None
    assert request.spec["root"]["readonly"] is True
    assert request.spec["linux"]["sysctl"]["net.core.somaxconn"] == "1"
    assert request.spec["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"


class TestUserNamespaces:
    @pytest.fixture
    def private(self, tmp_path: Any) -> Any:
        world = World(str(tmp_path), options=EngineOptions(userns="private"))
        yield world
        world.database.close()

    async def test_a_range_is_leased_for_the_run(self, private: World) -> None:
        request = await launch(private)
        first, span = 1 << 25, 65536
        assert request.spec["linux"]["uidMappings"] == [{"containerID": 0, "hostID": first, "size": span}]
        assert "user" in kinds(request.spec)
        assert request.spec["linux"]["sysctl"]["net.ipv4.ping_group_range"] == "0 65535"
        await private.containers.kill("web")
        await private.containers.remove("web")
        again = await launch(private)
        assert again.spec["linux"]["uidMappings"][0]["hostID"] == first + span

    async def test_the_range_covers_the_images_largest_id(self, private: World) -> None:
        base = replace(private.catalog.images["base"], max_id=70000)
        private.catalog.images |= {"base": base, base.id: base}
        request = await launch(private)
        assert request.spec["linux"]["uidMappings"][0]["size"] == 2 * 65536

    @pytest.mark.parametrize(
        "host",
        [{"userns_mode": "host"}, {"privileged": True}, {"network_mode": "host"}, {"pid_mode": "host"}],
    )
    async def test_sharing_with_the_host_means_its_ids(self, private: World, host: dict[str, Any]) -> None:
        request = await launch(private, **host)
        assert "uidMappings" not in request.spec["linux"]


async def test_exec_gets_the_containers_environment_and_its_own_rights(world: World) -> None:
    await launch(world, replace(PLAIN, env=("A=1",), working_dir="/srv"))
    container = world.containers.get("web")
    available = frozenset(ALL_CAPABILITIES)
    plain = oci.exec_process(container, ExecConfig(cmd=("ls",), env=("B=2",), tty=True), available)
    assert plain["env"] == ["PATH=/bin", f"HOSTNAME={container.id[:12]}", "TERM=xterm", "A=1", "B=2"]
    assert plain["cwd"] == "/srv"
    assert plain["capabilities"]["bounding"] == list(DEFAULT_CAPABILITIES)
    strong = oci.exec_process(container, ExecConfig(cmd=("ls",), privileged=True), available)
    assert strong["capabilities"]["bounding"] == list(ALL_CAPABILITIES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["noexec", "nosuid", "nodev"]),
        ("exec,suid", ["nodev", "exec", "suid"]),
        ("ro,noexec", ["nosuid", "nodev", "ro", "noexec"]),
    ],
)
def test_tmpfs_options_take_defaults_back(text: str, expected: list[str]) -> None:
    assert mounts.tmpfs_options(text) == expected


def test_a_device_directory_gives_what_is_in_it() -> None:
    found = devices.device(DeviceMapping(path_on_host="/dev", path_in_container="/host"))
    assert "/host/null" in {node["path"] for node, _ in found}
    assert all(rule["access"] == "rwm" for _, rule in found)

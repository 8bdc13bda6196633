"""Attacks by paths: files of the container that lead to the host's, or to the kernel's, as the engine walks.

Each names what it is known by. On an engine that is not careful it succeeds; here nothing of it may.
"""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from sampan.wire import tar
from sampan.wire.tar import Member
from tests import archives
from tests.attacks.conftest import Docker
from tests.e2e import images
from tests.e2e.serving import Daemon
from tests.e2e.talk import ask

pytestmark = [pytest.mark.root, pytest.mark.e2e]

SWAP = "while :; do mkdir /data/x; rm -rf /data/x; ln -s {} /data/x; rm -rf /data/x; done"


def evil(daemon: Daemon, **members: Member) -> str:
    """An image of busybox with a layer of ``members`` on top."""
    top = archives.pack({str(number): member for number, member in enumerate(members.values())})
    layers = [images.busybox_layer(), top]
    config = {"Env": ["PATH=/bin"], "Cmd": ["sh"]}
    packed = archives.pack(archives.docker_files(layers, ["evil:latest"], config=config))
    status, said = ask(daemon.socket, "POST", "/images/load?quiet=1", packed)
    assert status == 200, said
    return "evil"


def link(name: str, target: str) -> Member:
    return Member(name=name.encode(), kind=tar.SYMLINK, link=target.encode(), mode=0o777)


def test_cve_2018_15664_cp_into_a_path_that_is_swapped(
    engine: Docker, ids: tuple[str, ...], public: Path, tmp_path: Path
) -> None:
    """A directory becomes a link while ``cp`` looks at it."""
    swap = SWAP.format(public)
    engine("run", "-d", *ids, "--name", "box", "-v", "data:/data", "busybox", "sh", "-c", swap)
    (tmp_path / "source").write_text("from the host")
    for _ in range(5):
        engine("cp", f"{tmp_path}/source", "box:/data/x/marker")
    assert os.listdir(public) == []


def test_cve_2018_15664_cp_out_of_a_path_that_is_swapped(
    engine: Docker, ids: tuple[str, ...], public: Path
) -> None:
    (public / "secret").write_text("the host's")
    swap = SWAP.format(public)
    engine("run", "-d", *ids, "--name", "box", "-v", "data:/data", "busybox", "sh", "-c", swap)
    for _ in range(5):
        assert "the host's" not in engine("cp", "box:/data/x/secret", "-").stdout
    assert "the host's" not in engine("cp", "-L", "box:/data/x/secret", "-").stdout


@pytest.mark.parametrize("running", [True, False])
def test_cve_2019_14271_cp_loads_nothing_of_the_container(
    engine: Docker, daemon: Daemon, running: bool
) -> None:
    """What a library is looked for at is a pipe in the container: who opens it hangs."""
    places = [
        *(f"{folder}/libnss_files.so.2" for folder in ("lib", "lib64", "usr/lib", "lib/x86_64-linux-gnu")),
        "etc/nsswitch.conf",
        "etc/ld.so.cache",
        "root/encodings",
        "encodings",
        "codecs.py",
    ]
    members = {place: Member(name=place.encode(), kind=tar.FIFO, mode=0o666) for place in places}
    image = evil(daemon, **members)
    if running:
        engine("run", "-d", "--name", "box", image, "sleep", "1000")
    else:
        engine("create", "--name", "box", image)
    assert "busybox" not in engine("cp", "box:/etc/passwd", "-").stdout
    done = engine("cp", "/etc/hostname", "box:/root/new")
    assert done.returncode == 0, done


@pytest.mark.parametrize("inner", ["", "/inner"], ids=["onto-it", "below-it"])
def test_cve_2021_30465_mounts_onto_a_path_that_is_swapped(
    engine: Docker, ids: tuple[str, ...], public: Path, tmp_path: Path, inner: str
) -> None:
    """While a container starts, another one swaps the directory that it mounts on, or below.

    Who makes the place to mount on by that path, with the host in sight, makes it there.
    """
    (public / "secret").write_text("the host's")
    engine("run", "-d", *ids, "-v", "data:/data", "busybox", "sh", "-c", SWAP.format(public))
    (tmp_path / "marker").write_text("mounted")
    words = (*("-v", "data:/data", "-v", f"{tmp_path}:/data/x{inner}"), "busybox", "ls", f"/data/x{inner}")
    for _ in range(4):
        done = engine("run", "--rm", *ids, *words)
        # It is where it was wanted, or away with the directory, or there is no such container.
        assert done.stdout.strip() in ("marker", "inner", ""), done
    with open("/proc/self/mountinfo") as file:
        mounted = file.read()
    assert str(public) not in mounted
    assert str(tmp_path) not in mounted
    assert os.listdir(public) == ["secret"]


@pytest.mark.parametrize("kind", ["volume", "tmpfs", "file"])
def test_cve_2021_30465_mounts_below_a_link(
    engine: Docker, ids: tuple[str, ...], public: Path, kind: str
) -> None:
    """The same without a race: the link lies still, and leads to a place that is writable to anybody."""
    (public / "secret").write_text("the host's")
    engine("run", "--rm", *ids, "-v", "data:/data", "busybox", "ln", "-s", str(public), "/data/x")
    what = {
        "volume": ("-v", "other:/data/x/inner"),
        "tmpfs": ("--tmpfs", "/data/x/inner"),
        "file": ("-v", "/etc/hostname:/data/x/inner/name:ro"),
    }
    look = f"cat /data/x/secret; ls {public}"
    done = engine("run", "--rm", *ids, "-v", "data:/data", *what[kind], "busybox", "sh", "-c", look)
    # The link leads to the container's own directory of that name, which was made to mount on.
    assert done.stdout.strip() == "inner", done
    assert os.listdir(public) == ["secret"]


MASKED = "/proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/acpi /sys/firmware"


def test_cve_2025_31133_dev_null_leads_to_the_kernel(engine: Docker, tmp_path: Path) -> None:
    """/dev/null, which masks files of /proc, is a link to a file of /proc/sys."""
    (tmp_path / "null").symlink_to("/proc/sys/kernel/hostname")
    look = f"for p in {MASKED}; do [ -f $p ] && head -c 100 $p; (echo broken > $p) 2>&-; done; hostname"
    done = engine("run", "--rm", "--hostname", "mine", "-v", f"{tmp_path}:/dev", "busybox", "sh", "-c", look)
    assert done.stdout.strip() in ("mine", ""), done


def test_cve_2025_31133_masks_are_what_they_should_be(engine: Docker, ids: tuple[str, ...]) -> None:
    look = "for p in /proc/kcore /proc/keys /proc/timer_list; do [ -e $p ] && wc -c < $p; done"
    done = engine("run", "--rm", *ids, "busybox", "sh", "-c", look)
    assert set(done.stdout.split()) == {"0"}, done


@pytest.mark.parametrize("links", [("console",), ("console", "pts", "ptmx")])
def test_cve_2025_52565_dev_console_leads_to_the_kernel(
    engine: Docker, ids: tuple[str, ...], public: Path, links: tuple[str, ...]
) -> None:
    """The terminal is put at /dev/console, which is a link, and so may /dev/pts be, that it comes from."""
    kept = "/proc/sys/kernel/hostname"
    targets = {"console": kept, "pts": "/proc/sys/kernel", "ptmx": "/proc/sysrq-trigger"}
    for name in links:
        (public / name).symlink_to(targets[name])
    # What is hidden is hidden by it: without, the container would be refused for another reason.
    os.mknod(public / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    look = (
        f"stat -c %F {kept} /proc/sysrq-trigger; timeout 5 cat {kept}; (exec 3>>/dev/console) && echo OPENED"
    )
    done = engine(
        *("run", "--rm", "-t", *ids, "--hostname", "mine", "-v", f"{public}:/dev"),
        *("busybox", "sh", "-c", look),
    )
    # It may be refused; if it runs, the kernel's files are where they were, and not the terminal.
    if done.returncode == 0:
        assert "character" not in done.stdout, done
        assert "mine" in done.stdout, done


def test_cve_2025_52881_proc_leads_to_files_of_the_image(engine: Docker, daemon: Daemon) -> None:
    """/proc of the image is a link to files that look like the kernel's: nothing may be written there, and
    nothing that was to be set may be missed."""
    fake = [
        Member(name=b"fake/sys/net/ipv4/", kind=tar.DIRECTORY, mode=0o777),
        Member(name=b"fake/sys/net/ipv4/ip_default_ttl", mode=0o666),
        Member(name=b"fake/self/attr/exec", mode=0o666),
        Member(name=b"fake/self/oom_score_adj", mode=0o666),
        link("proc", "/fake"),
    ]
    image = evil(daemon, **{str(number): member for number, member in enumerate(fake)})
    look = (
        "find /fake -xdev -type f -size +0; cat /proc/sys/net/ipv4/ip_default_ttl; mount | grep -c ' /proc '"
    )
    done = engine("run", "--rm", "--sysctl", "net.ipv4.ip_default_ttl=77", image, "sh", "-c", look)
    assert "/fake" not in done.stdout, done
    if done.returncode == 0:
        assert done.stdout.split()[:1] == ["77"], done


def test_cve_2024_21626_a_working_directory_by_descriptor(
    engine: Docker, ids: tuple[str, ...], public: Path
) -> None:
    """A descriptor of the engine's that leads to the host, as the place to start in."""
    (public / "secret").write_text("the host's")
    look = f"cat ../../../../../../../../..{public}/secret; cat .{public}/secret"
    engine("run", "-d", *ids, "--name", "box", "busybox", "sleep", "1000")
    told: list[str] = []

    def attempt(number: int) -> None:
        place = f"/proc/self/fd/{number}"
        told.append(engine("run", "--rm", *ids, "-w", place, "busybox", "sh", "-c", look).stdout)
        told.append(engine("exec", "-w", place, "box", "sh", "-c", look).stdout)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(3, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 14
    assert not [text for text in told if "the host's" in text]


def test_cve_2024_21626_no_descriptor_comes_along(engine: Docker, ids: tuple[str, ...]) -> None:
    look = "ls /proc/self/fd | wc -l; ls -l /proc/self/fd"
    engine("run", "-d", *ids, "--name", "box", "busybox", "sleep", "1000")
    for words in (("run", "--rm", *ids, "busybox"), ("exec", "box")):
        done = engine(*words, "sh", "-c", look)
        assert done.stdout.split()[0] == "4", done  # three, and the directory that is listed

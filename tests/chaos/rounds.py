"""The chaos: rounds of load and kills, a check after each, a whole check now and then, and a clean end.

In a round every client does a few things, one after the other, while the killer kills. When all have ended, a
daemon that was killed is started again (and is perhaps killed while it starts). Then the engine gets as long
as it needs to come to rest, and must be found as the model allows: truth is waited for, never a time.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sampan.network.naming import bridge_name
from tests import archives
from tests.chaos import host, images, processes, truth, work
from tests.chaos.clients import Client, Violation, World
from tests.chaos.engine import Engine
from tests.chaos.host import Seen
from tests.chaos.killer import Kill, Killer, plan
from tests.chaos.model import CREATED, EXITED, PRESENT, RUNNING, Box, Thing
from tests.e2e import images as busybox
from tests.e2e import registries

PATIENCE = 40.0
"""Seconds for the engine to come to rest after a kill, on any machine."""
WHOLE = 12  # rounds between whole checks
_STEP = 0.02


@dataclass(slots=True, kw_only=True)
class Report:
    """What a run came to."""

    seed: int
    mix: str
    rounds: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0


class Chaos:
    """One run of one seed."""

    def __init__(
        self, root: str, registry: str, *, seed: int, load: int, mix: str, verbose: bool = False
    ) -> None:
        self.engine = Engine(root)
        layer = busybox.busybox_layer()
        self.world = World(self.engine, registry, {"busybox layer": layer})
        self.clients = [Client(f"c{number}", self.world) for number in range(load)]
        self.killer = Killer(self.world)
        self.report = Report(seed=seed, mix=mix)
        self._verbose = verbose
        self._seen = Seen()
        self._promises = list(work.PROMISES)
        random.Random(seed).shuffle(self._promises)
        self._restarted = False

    # ---- beginning and end

    def begin(self) -> None:
        os.makedirs(f"{self.engine.root}/out", mode=0o777)
        self.engine.start()
        answer = self.engine.ask("POST", "/images/load?quiet=1", busybox.busybox(), "application/x-tar")
        assert answer.status == 200, answer
        for client in self.clients:
            self._fill_registry(client)
        self._rest()

    def _fill_registry(self, client: Client) -> None:
        """Have something to pull from the first round on."""
        word = client.fresh("img")
        name = f"{self.world.registry}/{word.replace('-', '/', 1)}:t"
        config = {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"word": word, "chaos": client.name}}
        layers = [self.world.archives["busybox layer"], images.layer(word)]
        data = archives.pack(archives.docker_files(layers, [name], config=config))
        repository = name.rpartition(":")[0]
        for method, path, body in (
            ("POST", "/images/load?quiet=1", data),
            ("POST", f"/images/{repository}/push?tag=t", b""),
            ("DELETE", f"/images/{name}", None),
        ):
            answer = self.engine.ask(method, path, body, "application/x-tar")
            assert answer.status == 200, answer
        client.has.pushed[name] = Thing(name=name, word=word, marked=True, possible={PRESENT})

    def end(self) -> None:
        """Remove everything by the engine, stop it, and look for what is left."""
        for method, path in self._all_things():
            answer = self.engine.ask(method, path)
            assert answer.status in (200, 204, 404), (path, answer)
        for client in self.clients:
            client.has.boxes.clear()
            client.has.images.clear()
            client.has.networks.clear()
            client.has.volumes.clear()
            client.has.passing.clear()
        self._rest()
        self.engine.stop()
        self._wait(self._left, "after the end")
        for path in self.engine.logs():
            text = Path(path).read_text()
            # That a killed worker failed its request is told with a trace, too; that is no surprise.
            if (
                found := re.search(r"^Traceback|msg=\"request \d+ failed\"|never retrieved", text, re.M)
            ) is not None:
                raise Violation(f"{path}: {text[max(0, found.start() - 500) :][:3000]}")

    def _all_things(self) -> Iterator[tuple[str, str]]:
        found = truth.facts(self.world)
        for one in found.containers.values():
            yield "DELETE", f"/containers/{one['Id']}?force=1&v=1"
        for name in found.networks:
            if name not in ("bridge", "host", "none"):
                yield "DELETE", f"/networks/{name}"
        for name in found.volumes:
            yield "DELETE", f"/volumes/{name}"
        for name in found.images:
            if name != "busybox:latest":
                yield "DELETE", f"/images/{name}?force=1"
        yield "POST", "/build/prune?all=1"

    def _left(self) -> list[str]:
        processes.bury(set())
        root = self.engine.root
        left = [
            f"process {one.pid} ({one.kind}): {one.command!r}" for one in processes.of_engine(self.engine.run)
        ]
        left += [f"link {one['ifname']}" for one in host.links() if one["ifname"] != "lo"]
        left += [f"{path} is left" for path in host.groups_of(self.engine)]
        left += [
            f"mounted: {line}"
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if f" {root}/" in line
        ]
        for directory in ("/run/sampan-networks", "/run/sampan-ids"):
            left += [f"{directory}/{name}" for name in host.names(directory) if name.endswith(".json")]
        left += [f"namespace {name}" for name in host.names("/run/netns")]
        return left

    def destroy(self) -> None:
        """After a violation: end what runs, so that the machine is as before."""
        for _ in range(3):
            for one in processes.of_engine(self.engine.run):
                with contextlib.suppress(OSError):
                    processes.end(one.pid)
        processes.bury(set())
        for tree in (host.GROUPS, *(f"{host.GROUPS}/{name}" for name in host.names(host.GROUPS))):
            top = f"{tree}/{bridge_name(self.engine.data)}"
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)

    # ---- rounds

    def round(self, number: int) -> None:
        """Load and kills; then the check."""
        dice = random.Random(f"{self.report.seed}/{number}")
        counts = [dice.choice((1, 2, 2, 3)) for _ in self.clients]
        boxes = {box.name: box for client in self.clients for box in client.has.boxes.values()}
        kills = plan(dice, boxes.values(), sum(counts))
        for kill in kills:
            if kill.box:
                boxes[kill.box].harmed = True
        if self._verbose:
            print(f"-- round {number}: {kills}", flush=True)
        self.world.operations = self.world.answers = 0
        self.world.busy.clear()
        wanted = self._wanted(kills, dice)
        threads = [
            threading.Thread(
                target=self._work,
                args=(
                    client,
                    count,
                    f"{self.report.seed}/{number}/{client.name}",
                    wanted.get(client.name, []),
                ),
            )
            for client, count in zip(self.clients, counts, strict=True)
        ]
        for thread in threads:
            thread.start()
        self._carry_out([kill for kill in kills if kill.victim != "starting daemon"], threads)
        for thread in threads:
            thread.join()
        self._restart([kill for kill in kills if kill.victim == "starting daemon"], dice)
        self._rest()
        if number % WHOLE == 0:
            self.whole()
        self.report.rounds += 1

    def _wanted(self, kills: Sequence[Kill], dice: random.Random) -> dict[str, list[str]]:
        """What clients have to do in this round, so that there is what to kill over: the operation that
        the daemon's killer aims at, in turns among all, and one with a worker for each who aims at one."""
        wanted: dict[str, list[str]] = {}
        self.world.aim, self.world.shoot = "", self.killer.shoot
        if any(kill.aimed for kill in kills):
            for name in self._promises:
                if able := [client.name for client in self.clients if work.OPERATIONS[name].ready(client)]:
                    self._promises.remove(name)
                    self._promises.append(name)
                    self.world.aim = name
                    wanted.setdefault(dice.choice(able), []).append(name)
                    break
        for kill in kills:
            if kill.victim == "worker":
                client = dice.choice(self.clients)
                names = [name for name in work.VISITED if work.OPERATIONS[name].ready(client)]
                wanted.setdefault(client.name, []).insert(0, dice.choice(names))
        return wanted

    def _work(self, client: Client, count: int, dice: str, wanted: Sequence[str]) -> None:
        client.dice = random.Random(dice)
        client.alive = True
        try:
            for number in range(max(count, len(wanted))):
                if not client.alive:
                    return
                name = wanted[number] if number < len(wanted) else ""
                if not name or not work.OPERATIONS[name].ready(client):
                    name = work.choose(client, client.dice, self.report.mix)
                client.start_of(name)
                if self._verbose:
                    print(f"   {client.name}: {name}", flush=True)
                try:
                    work.OPERATIONS[name].do(client)
                finally:
                    self.world.end(name)
        except AssertionError as error:
            self.world.violated(f"{client.name}: {client.kind}: {error}")
        except Exception as error:
            self.world.violated(f"{client.name}: {client.kind}: {error!r}")

    def _carry_out(self, kills: Sequence[Kill], threads: Sequence[threading.Thread]) -> None:
        for kill in kills:
            with self.world.began:
                while any(thread.is_alive() for thread in threads) and not self._due(kill):
                    self.world.began.wait(0.01)
            if not kill.aimed and kill.victim != "worker" and not (kill.box and kill.victim == "daemon"):
                time.sleep(kill.delay)
            boxes = {box.name: box for client in self.clients for box in list(client.has.boxes.values())}
            if kill.aimed:
                self.killer.shoot()  # if nobody was aimed at, or was answered
            elif self.engine.pid or "keeper" in kill.victim:
                self.killer.carry_out(kill, boxes)

    def _due(self, kill: Kill) -> bool:
        if not self.engine.pid:
            return True
        if kill.victim == "worker":
            return any(self.world.busy[name] for name in work.VISITED)
        if kill.aimed:
            return False  # the client who is answered does it
        return kill.after <= (self.world.answers if kill.answered else self.world.operations)

    def _restart(self, kills: Sequence[Kill], dice: random.Random) -> None:
        """Start the daemon that was killed; and kill those that are just starting."""
        for kill in kills:
            if self.engine.pid:
                self.world.harm("daemon")
                self.engine.kill()
            self.engine.begin()
            time.sleep(kill.delay)
            self.engine.kill()
            self.killer.count("starting daemon", hit=True)
            self._restarted = True
        if not self.engine.pid:
            self.engine.start(on_demand=dice.random() < 0.3)
            self._restarted = True
        self.world.serves_again()

    # ---- checks

    def _rest(self) -> None:
        """Wait until everything is as it may be; then learn."""
        found: truth.Facts | None = None

        def wrong() -> list[str]:
            nonlocal found
            self._remove_passing()
            for client in self.clients:
                for box in client.has.boxes.values():
                    if box.identity in self.world.lost and not box.harmed:
                        box.harmed = True
                        box.bereft()
            found = truth.facts(self.world)
            differences = truth.differences(self.clients, found, restarted=self._restarted)
            if self.world.violations:
                return []
            left = host.problems(self.engine, found.said, self._seen)
            moved = truth.facts(self.world).stands() != found.stands()
            return [*differences, *left, *(["the containers are still changing"] if moved else [])]

        self._wait(wrong, "at rest")
        if self.world.violations:
            raise Violation("\n".join(self.world.violations))
        assert found is not None
        truth.learn(self.clients, found)
        self.world.lost.clear()
        self._restarted = False

    def _remove_passing(self) -> None:
        """Containers of ``run --rm`` whose client had no answer may have been made and never started."""
        for client in self.clients:
            for name in client.has.passing:
                answer = self.engine.ask("GET", f"/containers/{name}/json")
                if answer.status == 200 and answer.json()["State"]["Status"] == CREATED:
                    self.engine.ask("DELETE", f"/containers/{name}?v=1")

    def _wait(self, wrong: object, what: str) -> None:
        assert callable(wrong)
        deadline = time.monotonic() + PATIENCE
        while found := wrong():
            if time.monotonic() > deadline:
                raise Violation(f"{what}: " + "\n".join(found))
            time.sleep(_STEP)

    def whole(self) -> None:
        """The store by the engine's own check; every image by running it; every file by copying it out."""
        done = self.engine.command("system", "check")
        if done.returncode:
            raise Violation(f"system check: {(done.stdout + done.stderr).decode()}")
        for client in self.clients:
            for thing in client.has.images.values():
                self._try_image(thing)
            for box in client.has.boxes.values():
                self._try_box(box)
            for name, there in client.has.pushed.items():
                if there.possible == {PRESENT} and not images.in_registry(name):
                    raise Violation(f"{name} was pushed and is not there")

    def _try_image(self, thing: Thing) -> None:
        if not thing.marked:
            answer = self.engine.ask("GET", f"/images/{thing.name}/get")
            if answer.status != 200:
                raise Violation(f"{thing.name} cannot be saved: {answer}")
            return
        done = self.engine.command("run", "--rm", "--network", "none", thing.name, "cat", "/marker")
        if done.stdout.decode() != f"{thing.word}\n":
            raise Violation(f"{thing.name} says {done.stdout!r} and not {thing.word}: {done.stderr!r}")

    def _try_box(self, box: Box) -> None:
        if not box.possible <= {CREATED, EXITED, RUNNING}:
            return
        for path, word in box.words.items():
            answer = self.engine.ask("GET", f"/containers/{box.name}/archive?path=/{path}")
            from tests.chaos.containers import unpacked

            if answer.status != 200 or unpacked(answer.body) != {path: word.encode()}:
                raise Violation(f"/{path} of {box.name} is not {word}: {answer.status} {answer.body[:200]!r}")


def play(
    *,
    seed: int,
    kills: int,
    load: int = 4,
    mix: str = "even",
    minutes: float = 0,
    verbose: bool = False,
    keep: str = "",
) -> Report:
    """Play one seed until so many kills have hit, or the time is over. A violation ends it; see the report.

    ``keep``: where the engine's files and logs are put after a violation.
    """
    processes.become_reaper()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sampan-chaos-", dir="/tmp") as root:
        os.chmod(root, 0o755)
        os.mkdir(f"{root}/registry")
        with registries.serve(Path(root, "registry")) as registry:
            chaos = Chaos(f"{root}/e", registry, seed=seed, load=load, mix=mix, verbose=verbose)
            os.mkdir(chaos.engine.root)
            report = chaos.report
            try:
                chaos.begin()
                while chaos.killer.kills.total() < kills and not (
                    minutes and time.monotonic() - began > minutes * 60
                ):
                    chaos.round(report.rounds + 1)
                chaos.whole()
                chaos.end()
            except (AssertionError, subprocess.SubprocessError, OSError) as error:
                report.violations.append(f"round {report.rounds + 1}: {error!r} {error}")
                if keep:
                    shutil.rmtree(keep, ignore_errors=True)
                    os.makedirs(keep)
                    for path in chaos.engine.logs():
                        shutil.copy(path, keep)
            finally:
                chaos.destroy()
    report.kills, report.missed = chaos.killer.kills, chaos.killer.missed
    report.asked, report.answered = chaos.world.asked, chaos.world.answered
    report.seconds = time.monotonic() - began
    return report

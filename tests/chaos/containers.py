"""The load: what a client does with containers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from tests.chaos.clients import DONE, NEVER, UNKNOWN, Client
from tests.chaos.model import ABSENT, CREATED, EXITED, PAUSED, RESTARTING, RUNNING, Box, Thing

MOST_BOXES = 4


def create(client: Client) -> Box | None:
    images = [""] + [name for name in client.settled("images") if client.has.images[name].marked]
    box, body = client.new_box(image=client.dice.choice(images))
    answer = client.ask("POST", f"/containers/create?name={box.name}", body)
    how = client.judge(answer, 201)
    if how == DONE:
        box.identity = answer.json()["Id"]
    if how != NEVER:
        client.has.boxes[box.name] = box
        box.become(CREATED) if how == DONE else box.may(CREATED)
    client.world.count("create", how)
    return box if how == DONE else None


def run(client: Client) -> None:
    """As ``run -d``."""
    if client.dice.random() < 0.3:
        run_by_command(client)
        return
    box = create(client)
    if box is not None:
        start_box(client, box)


def run_by_command(client: Client) -> None:
    box, body = client.new_box()
    words = ["run", "-d", "--name", box.name, "--label", f"chaos={client.name}"]
    words += ["-v", f"{client.home(box.name)}:/out"]
    if box.policy:
        words += ["--restart", box.policy]
    (network,) = box.networks
    how, out = client.command(*words, "--network", network, "busybox", *body["Cmd"])
    client.has.boxes[box.name] = box
    box.may(CREATED)
    if how == DONE:
        box.identity = out.decode().strip()
        box.harmed = box.identity in client.world.lost
    client.began(box, how)
    client.world.count("run -d", how)


def start(client: Client) -> None:
    start_box(client, client.dice.choice(client.boxes(CREATED, EXITED)))


def start_box(client: Client, box: Box) -> None:
    client.arm(box)
    how = client.judge(client.ask("POST", f"/containers/{box.name}/start"), 204, 304, box=box)
    if how == NEVER:
        client.disarm(box)
    else:
        client.began(box, how)
    client.world.count("start", how)


def restart(client: Client) -> None:
    box = client.dice.choice(client.boxes(RUNNING, EXITED))
    how = client.judge(client.ask("POST", f"/containers/{box.name}/restart"), 204, box=box)
    if how != NEVER:
        client.began(box, how)
        box.cut = True  # which of the two runs wrote its code is not known
    client.world.count("restart", how)


def stop(client: Client) -> None:
    box = client.dice.choice(client.boxes(RUNNING, RESTARTING, EXITED))
    how = client.judge(client.ask("POST", f"/containers/{box.name}/stop"), 204, 304, box=box)
    if how != NEVER:
        box.ended("stop", surely=how == DONE)
    client.world.count("stop", how)


def kill(client: Client) -> None:
    box = client.dice.choice(client.boxes(RUNNING, policy=False))
    good = (204, 409) if box.turns >= 0 else (204,)
    how = client.judge(client.ask("POST", f"/containers/{box.name}/kill"), *good, box=box)
    if how != NEVER:
        box.ended("kill", surely=how == DONE)
    if how == DONE:  # the signal was sent, as in Docker; the end follows
        client.judge(client.ask("POST", f"/containers/{box.name}/wait"), 200, box=box)
    client.world.count("kill", how)


def pause(client: Client) -> None:
    box = client.dice.choice([box for box in client.boxes(RUNNING, policy=False) if box.turns < 0])
    how = client.judge(client.ask("POST", f"/containers/{box.name}/pause"), 204, box=box)
    if how == DONE:
        box.become(PAUSED, *((EXITED,) if box.harmed else ()))
    elif how == UNKNOWN:
        box.may(PAUSED)
    client.world.count("pause", how)


def unpause(client: Client) -> None:
    box = client.dice.choice(client.boxes(PAUSED))
    how = client.judge(client.ask("POST", f"/containers/{box.name}/unpause"), 204, box=box)
    if how == DONE:
        box.become(RUNNING, *((EXITED,) if box.harmed else ()))
    elif how == UNKNOWN:
        box.may(RUNNING)
    client.world.count("unpause", how)


def remove(client: Client) -> None:
    box = client.dice.choice(list(client.has.boxes.values()))
    good = (204, 404) if ABSENT in box.possible else (204,)
    how = client.judge(client.ask("DELETE", f"/containers/{box.name}?force=1&v=1"), *good, box=box)
    if how != NEVER:
        box.ended("rm", surely=False)
        box.become(ABSENT) if how == DONE else box.may(ABSENT)
    client.world.count("rm", how)


def run_rm(client: Client) -> None:
    """``run --rm``: its output, its exit code, and what it writes to a volume."""
    name, word, code = client.fresh("rm"), client.fresh("word"), client.dice.randrange(10)
    words = ["run", "--rm", "--name", name, "--label", f"chaos={client.name}"]
    volumes = client.settled("volumes")
    script = f"echo {word}; exit {code}"
    volume = client.dice.choice(volumes) if volumes else ""
    if volume:
        words += ["-v", f"{volume}:/v"]
        script = f"echo {word} >>/v/log; {script}"
    how, out = client.command(*words, "busybox", "sh", "-c", script, good=code)
    if how == DONE and code != 0 and not out and client.world.harmed(client.since):
        how = UNKNOWN  # a code of the client's own
    harmed = client.world.harmed(client.since)
    twice = how == DONE and harmed and out.decode() == f"{word}\n" * 2
    if how == DONE and out.decode() != f"{word}\n" and not twice:
        client.world.violated(f"{client.name}: run --rm wrote {out!r} and not {word}, and exited with {code}")
    if volume:
        client.has.volumes[volume].words[word] = {1, 1 + harmed} if how == DONE else {0, 1, 2}
    if how != DONE:
        client.has.passing.add(name)
    client.world.count("run --rm", how)


def execute(client: Client) -> None:
    box = client.dice.choice([box for box in client.boxes(RUNNING, policy=False) if box.turns < 0])
    word, code = client.fresh("word"), client.dice.randrange(10)
    script = f"echo {word} >>/out/execs; echo {word}; exit {code}"
    body = {"Cmd": ["sh", "-c", script], "AttachStdout": True}
    answer = client.ask("POST", f"/containers/{box.name}/exec", body)
    how = client.judge(answer, 201, box=box)
    if how == DONE:
        identity = answer.json()["Id"]
        answer = client.ask("POST", f"/exec/{identity}/start", {"Detach": False})
        how = client.judge(answer, 200, box=box)
        box.execs[word] = {0, 1}
        if how == DONE and answer.body[8:].decode() != f"{word}\n":
            how = UNKNOWN
            if not (client.world.harmed(client.since) or box.harmed):
                client.world.violated(f"exec in {box.name} answers {answer.body!r} and not {word}")
        told = client.ask("GET", f"/exec/{identity}/json")
        if told.status == 200 and how == DONE:
            found = told.json()
            # The keeper's end may have come between the output and the exit.
            good = (code, 137) if box.harmed or client.world.harmed(client.since) else (code,)
            if found["ExitCode"] not in good or found["Running"]:
                client.world.violated(f"exec in {box.name} ended with {code}, not as {found}")
            if found["ExitCode"] == code:
                box.execs[word] = {1}
    client.world.count("exec", how)


def copy_in(client: Client) -> None:
    box = client.dice.choice(client.boxes(CREATED, EXITED, RUNNING, policy=False))
    path, word = f"file{client.dice.randrange(3)}", client.fresh("word")
    how = client.judge(
        client.ask("PUT", f"/containers/{box.name}/archive?path=/", packed({path: word.encode()})),
        200,
        box=box,
    )
    if how == DONE:
        box.words[path] = word
    elif how == UNKNOWN:
        box.words.pop(path, None)  # as in Docker: it may be old, new, or a part of it
    client.world.count("cp in", how)


def copy_out(client: Client) -> None:
    box = client.dice.choice(
        [box for box in client.boxes(CREATED, EXITED, RUNNING, policy=False) if box.words]
    )
    path, word = client.dice.choice(list(box.words.items()))
    answer = client.ask("GET", f"/containers/{box.name}/archive?path=/{path}")
    how = client.judge(answer, 200, box=box)
    if how == DONE and (found := unpacked(answer.body)) != {path: word.encode()}:
        if not (client.world.harmed(client.since) or box.harmed):
            client.world.violated(f"{box.name}: /{path} is {found}, not {word}")
        how = UNKNOWN
    client.world.count("cp out", how)


def follow_logs(client: Client) -> None:
    box = client.dice.choice([box for box in client.boxes(RUNNING, policy=False) if not box.harmed])
    told = client.engine.stream(f"/containers/{box.name}/logs?stdout=1&follow=1", 0.3)
    if (text := gap(lines_of(told))) and not client.world.harmed(client.since):
        client.world.violated(f"logs -f of {box.name}: {text}")
    client.world.count("logs -f", DONE)


def hear_events(client: Client) -> None:
    told = client.engine.stream("/events", 0.3)
    for line in told.splitlines()[:-1]:
        json.loads(line)
    client.world.count("events", DONE)


def connect(client: Client) -> None:
    box = client.dice.choice(client.boxes(CREATED, EXITED, RUNNING, policy=False))
    free = [name for name in client.settled("networks") if name not in box.networks | box.perhaps]
    if not free:
        return
    name = client.dice.choice(free)
    how = client.judge(client.ask("POST", f"/networks/{name}/connect", {"Container": box.name}), 200, box=box)
    if how == DONE:
        box.networks.add(name)
    elif how == UNKNOWN:
        box.perhaps.add(name)
    client.world.count("network connect", how)


def disconnect(client: Client) -> None:
    box = client.dice.choice(connected(client))
    name = client.dice.choice(sorted(box.networks - {box.first}))
    body = {"Container": box.name, "Force": True}
    how = client.judge(client.ask("POST", f"/networks/{name}/disconnect", body), 200, box=box)
    if how == DONE:
        box.networks.discard(name)
    elif how == UNKNOWN:
        box.networks.discard(name)
        box.perhaps.add(name)
    client.world.count("network disconnect", how)


def connected(client: Client) -> list[Box]:
    """Containers on more networks than the one that they were made for."""
    return [box for box in client.boxes(CREATED, EXITED, RUNNING, policy=False) if len(box.networks) > 1]


def free_networks(client: Client) -> list[str]:
    used = {name for box in client.has.boxes.values() for name in box.networks | box.perhaps}
    return [name for name in client.settled("networks") if name not in used]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """What is made and removed in the same way: ``things`` are a client's, at ``path`` in the API."""

    name: str
    things: str
    path: str
    removable: Callable[[Client], list[str]]

    def create(self, client: Client) -> None:
        name = client.fresh(self.name[:3])
        body = {"Name": name, "Labels": client.label}
        how = client.judge(client.ask("POST", f"{self.path}/create", body), 201)
        if how != NEVER:
            thing = getattr(client.has, self.things)[name] = Thing(name=name)
            thing.made(surely=how == DONE)
        client.world.count(f"{self.name} create", how)

    def remove(self, client: Client) -> None:
        thing = getattr(client.has, self.things)[client.dice.choice(self.removable(client))]
        how = client.judge(client.ask("DELETE", f"{self.path}/{thing.name}"), 204)
        if how != NEVER:
            thing.removed(surely=how == DONE)
        client.world.count(f"{self.name} rm", how)


NETWORK = Sort(name="network", things="networks", path="/networks", removable=free_networks)
VOLUME = Sort(
    name="volume", things="volumes", path="/volumes", removable=lambda client: client.settled("volumes")
)


def prune(client: Client) -> None:
    sorts = ["containers", "containers", "volumes", "images", "build"]
    if set(free_networks(client)) == set(client.has.networks):
        sorts.append("networks")
    sort = client.dice.choice(sorts)
    filters = {"label": [f"chaos={client.name}"]}
    if sort == "volumes":
        filters["all"] = ["true"]
    query = "" if sort == "build" else f"?filters={quote(json.dumps(filters))}"
    how = client.judge(client.ask("POST", f"/{sort}/prune{query}"), 200)
    if how != NEVER:
        _pruned(client, sort, surely=how == DONE)
    client.world.count(f"{sort} prune", how)


def _pruned(client: Client, sort: str, *, surely: bool) -> None:
    if sort == "containers":
        for box in client.has.boxes.values():
            if box.possible <= {CREATED, EXITED, ABSENT} and surely and not box.harmed:
                box.become(ABSENT)
            elif box.possible & {CREATED, EXITED}:
                box.may(ABSENT)
    elif sort == "networks":
        for thing in client.has.networks.values():
            thing.removed(surely=surely)
    elif sort == "volumes":
        for thing in client.has.volumes.values():
            thing.removed(surely=surely and not client.has.passing)


# ---- small formats


def packed(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def unpacked(data: bytes) -> dict[str, bytes]:
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for entry in archive:
                if entry.isfile() and (file := archive.extractfile(entry)) is not None:
                    found[entry.name] = file.read()
    except tarfile.TarError:
        return {}
    return found


def lines_of(stream: bytes) -> list[str]:
    """The whole lines of a stream of frames, each with a head of eight bytes."""
    text = b""
    while len(stream) >= 8:
        size = int.from_bytes(stream[4:8], "big")
        text, stream = text + stream[8 : 8 + size], stream[8 + size :]
    return text.decode().split("\n")[:-1]


def gap(lines: list[str]) -> str:
    """What is wrong with the numbers that a program counted aloud; a run begins at 0."""
    last = -1
    for line in lines:
        if not line.isdecimal():
            return f"{line!r} is no number"
        if int(line) not in (0, last + 1):
            return f"{line} comes after {last}"
        last = int(line)
    return ""

"""The load: what a client does with images."""

from __future__ import annotations

import http.client
import io
import json
import os
import tarfile
import tempfile

from tests import archives
from tests.chaos.clients import DONE, NEVER, UNKNOWN, Client
from tests.chaos.containers import packed, unpacked
from tests.chaos.model import ABSENT, CREATED, EXITED, PRESENT, RUNNING, Thing

FILES = 150  # in a layer, so that unpacking it takes a while
DOCKERFILE = """FROM busybox:latest
LABEL word={word} chaos={client}
RUN echo {word} >/marker
COPY . /context
RUN echo {word} >/second
"""


def _named(client: Client, word: str, *, marked: bool) -> Thing:
    name = f"{word.replace('-', '/', 1)}:t"
    return client.has.images.setdefault(name, Thing(name=name, word=word, marked=marked))


def _made(client: Client, thing: Thing, how: str) -> None:
    if how != NEVER:
        thing.made(surely=how == DONE)


def layer(word: str) -> bytes:
    """A layer with the word in /marker and many files beside it."""
    files = {f"many/{number}": os.urandom(512) * 4 for number in range(FILES)}
    return archives.pack({"marker": f"{word}\n".encode(), **files})


def build(client: Client) -> None:
    word = client.fresh("img")
    thing = _named(client, word, marked=True)
    dockerfile = DOCKERFILE.format(word=word, client=client.name)
    files = {f"file{number}": os.urandom(4096) for number in range(20)}
    if client.dice.random() < 0.4:
        with tempfile.TemporaryDirectory(dir=client.engine.root) as folder:
            for name, data in {"Dockerfile": dockerfile.encode(), **files}.items():
                with open(f"{folder}/{name}", "wb") as file:
                    file.write(data)
            how, _ = client.command("build", "-q", "-t", thing.name, folder)
        kind = "build by session"
    else:
        context = packed({"Dockerfile": dockerfile.encode(), **files})
        how = client.judge(client.stream("POST", f"/build?t={thing.name}", context, "application/x-tar"), 200)
        kind = "build"
    _made(client, thing, how)
    client.world.count(kind, how)


def load(client: Client) -> None:
    word = client.fresh("img")
    thing = _named(client, word, marked=True)
    layers = [client.world.archives["busybox layer"], layer(word)]
    config = {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": {"word": word, "chaos": client.name}}
    data = archives.pack(
        archives.docker_files(layers, [thing.name], zipped=client.dice.random() < 0.5, config=config)
    )
    how = client.judge(client.stream("POST", "/images/load?quiet=1", data, "application/x-tar"), 200)
    _made(client, thing, how)
    client.world.count("load", how)


def bring_in(client: Client) -> None:
    """As ``import``."""
    word = client.fresh("img")
    thing = _named(client, word, marked=False)
    repository, _, tag = thing.name.rpartition(":")
    query = f"fromSrc=-&repo={repository}&tag={tag}&changes=LABEL%20word={word}%20chaos={client.name}"
    how = client.judge(
        client.stream("POST", f"/images/create?{query}", layer(word), "application/x-tar"), 200
    )
    _made(client, thing, how)
    client.world.count("import", how)


def commit(client: Client) -> None:
    box = client.dice.choice(client.boxes(CREATED, EXITED, RUNNING, policy=False, harmed=False))
    word = client.fresh("img")
    thing = _named(client, word, marked=False)
    repository, _, tag = thing.name.rpartition(":")
    query = (
        f"container={box.name}&repo={repository}&tag={tag}&changes=LABEL%20word={word}%20chaos={client.name}"
    )
    how = client.judge(client.ask("POST", f"/commit?{query}", {}), 201)
    _made(client, thing, how)
    client.world.count("commit", how)


def export(client: Client) -> None:
    box = client.dice.choice(client.boxes(CREATED, EXITED, RUNNING, policy=False, harmed=False))
    answer = client.ask("GET", f"/containers/{box.name}/export")
    how = client.judge(answer, 200)
    if how == DONE and not client.world.harmed(client.since) and "etc/passwd" not in unpacked(answer.body):
        client.world.violated(f"export of {box.name} is not whole: {len(answer.body)} bytes")
    client.world.count("export", how)


def tag(client: Client) -> None:
    old = client.has.images[client.dice.choice(client.settled("images"))]
    name = f"{client.fresh('tag').replace('-', '/', 1)}:t"
    thing = Thing(name=name, word=old.word, marked=old.marked)
    _tag(client, old.name, thing)


def _tag(client: Client, old: str, thing: Thing) -> str:
    repository, _, label = thing.name.rpartition(":")
    how = client.judge(client.ask("POST", f"/images/{old}/tag?repo={repository}&tag={label}"), 201)
    if how != NEVER:
        client.has.images[thing.name] = thing
        thing.made(surely=how == DONE)
    client.world.count("tag", how)
    return how


def removable(client: Client) -> list[str]:
    """Names of images on which no container stands."""
    used = {box.image for box in client.has.boxes.values()}
    words = {thing.word for name, thing in client.has.images.items() if name in used}
    return [name for name in client.settled("images") if client.has.images[name].word not in words]


def remove_image(client: Client) -> None:
    thing = client.has.images[client.dice.choice(removable(client))]
    how = client.judge(client.ask("DELETE", f"/images/{thing.name}"), 200)
    if how != NEVER:
        thing.removed(surely=how == DONE)
    if how == UNKNOWN:
        client.has.untagged.add(thing.word)
    client.world.count("rmi", how)


def save(client: Client) -> None:
    thing = client.has.images[client.dice.choice(client.settled("images"))]
    answer = client.ask("GET", f"/images/{thing.name}/get")
    how = client.judge(answer, 200)
    if how == DONE:
        try:
            manifest = json.loads(unpacked(answer.body)["manifest.json"])
            with tarfile.open(fileobj=io.BytesIO(answer.body)) as archive:
                names = set(archive.getnames())
            whole = thing.name in manifest[0]["RepoTags"] and set(manifest[0]["Layers"]) <= names
        except (KeyError, ValueError, IndexError, tarfile.TarError):
            whole = False
        if not whole and not client.world.harmed(client.since):
            client.world.violated(f"save of {thing.name} is not whole: {len(answer.body)} bytes")
    client.world.count("save", how)


def push(client: Client) -> None:
    old = client.has.images[client.dice.choice(client.settled("images"))]
    name = f"{client.world.registry}/{client.fresh('push').replace('-', '/', 1)}:t"
    thing = Thing(name=name, word=old.word, marked=old.marked)
    if _tag(client, old.name, thing) != DONE:
        return
    how = client.judge(client.stream("POST", f"/images/{name.rpartition(':')[0]}/push?tag=t", b""), 200)
    there = client.has.pushed.setdefault(name, Thing(name=name, word=old.word, marked=old.marked))
    if how != NEVER:
        there.made(surely=how == DONE)
    if how == DONE and not in_registry(name):
        client.world.violated(f"{name} was pushed, and the registry does not have it")
    client.world.count("push", how)


def in_registry(name: str) -> bool:
    host, _, rest = name.partition("/")
    repository, _, label = rest.rpartition(":")
    connection = http.client.HTTPConnection(host, timeout=30)
    accepted = (
        "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"
    )
    connection.request("GET", f"/v2/{repository}/manifests/{label}", headers={"Accept": accepted})
    status = connection.getresponse().status
    connection.close()
    return status == 200


def pullable(client: Client) -> list[str]:
    """What the registry surely has, and the engine surely not."""
    return [
        name
        for name, thing in client.has.pushed.items()
        if thing.possible == {PRESENT}
        and (name not in client.has.images or client.has.images[name].possible == {ABSENT})
    ]


def pull(client: Client) -> None:
    there = client.has.pushed[client.dice.choice(pullable(client))]
    repository, _, label = there.name.rpartition(":")
    how = client.judge(client.stream("POST", f"/images/create?fromImage={repository}&tag={label}", b""), 200)
    if how != NEVER:
        thing = Thing(name=there.name, word=there.word, marked=there.marked)
        client.has.images[there.name] = thing
        thing.made(surely=how == DONE)
    client.world.count("pull", how)

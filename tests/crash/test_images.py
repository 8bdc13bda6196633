"""kill -9 at every change that loading, replacing and removing images makes, then recovery.

Law under test: what was acknowledged is there, everything else is whole or absent, and the disk holds nothing
that no row names.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.errors import NotFound
from tests.crash.dying import FIRST
from tests.root.images.stores import Store, opened

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).parents[2]
MOST_STEPS = 40


def die(root: Path, step: int, what: str) -> bool:
    """Run one process; whether it died at ``step``, before its work was done."""
    command = [sys.executable, "-m", "tests.crash.dying", str(root), str(step), what]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


async def check(store: Store) -> set[str]:
    """Every relation holds; the names that are there."""
    assert store.lost == []
    await store.settle()
    needed = set()
    for image in store.catalog:
        needed |= {f"blob {image.id[7:]}"} | {f"blob {blob.digest[7:]}" for blob in image.blobs}
        needed |= {f"layer {store.layers[chain_id].id}" for chain_id in image.chain}
        for number, chain_id in enumerate(image.chain):
            assert any(store.tree(image, number).iterdir()), chain_id
    assert set(store.files()) == needed
    return {name.familiar for image in store.catalog for name in store.catalog.names_of(image.id)}


@pytest.mark.parametrize(
    ("what", "before", "allowed"),
    [
        ("load", False, [set(), {"a:latest"}]),
        ("replace", True, [{"a:latest"}]),
        ("remove", True, [set(), {"a:latest"}]),
        ("tag", True, [{"a:latest"}, {"a:latest", "b:latest"}]),
    ],
)
def test_killed_at_every_step(what: str, before: bool, allowed: list[set[str]], tmp_path: Path) -> None:
    async def prepare(root: Path) -> None:
        async with opened(root) as store:
            if before:
                await store.load(FIRST)

    async def recover(root: Path) -> None:
        async with opened(root) as store:
            assert await check(store) in allowed
            # Whatever happened, the same work can be done afterwards.
            await store.load(FIRST)
            assert (await store.catalog.resolve("a")).size == 2
            await store.images.remove("a", force=True)
            with pytest.raises(NotFound):
                await store.catalog.resolve("a")

    template = tmp_path / "template"
    asyncio.run(prepare(template))
    for step in range(1, MOST_STEPS):
        root = tmp_path / str(step)
        shutil.copytree(template, root, symlinks=True)
        died = die(root, step, what)
        asyncio.run(recover(root))
        shutil.rmtree(root)
        if not died:
            return
    pytest.fail(f"still not done after {MOST_STEPS} steps")

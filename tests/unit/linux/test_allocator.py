"""Freed memory goes back to the kernel although something above it lives."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

SCENE = """
from sampan.linux import allocator
allocator.keep_little()
blocks = [bytes(2000) for _ in range(20_000)]
last = blocks.pop()
blocks.clear()
before = allocator.resident()
allocator.trim()
print(before - allocator.resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library's allocator")
def test_what_was_freed_below_a_block_that_lives_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCENE], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 20 << 20

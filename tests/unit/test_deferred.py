"""asyncio that was imported without TLS, in a process of its own; a server and a client of it, with TLS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.certificates import Authority

TALK = """
import sys
from sampan.deferred import asyncio_with_tls, asyncio_without_tls

asyncio_without_tls()
import asyncio

assert "ssl" not in sys.modules
place = sys.argv[1]

async def echo(reader, writer):
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()

async def main():
    from sampan.api.tls import Identity, rules
    from sampan.wire.trust import trusting

    accepted = rules(Identity(certificate=f"{place}/server.pem", key=f"{place}/server-key.pem"))
    asyncio_with_tls()
    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=accepted)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=trusting(f"{place}/ca.pem"), server_hostname="127.0.0.1"
    )
    writer.write(b"so it is\\n")
    print((await reader.read()).decode(), end="")
    writer.close()
    server.close()

asyncio.run(main())
asyncio_with_tls()
"""


def test_tls_comes_when_it_is_asked_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.sign("server")
    done = subprocess.run(
        [sys.executable, "-c", TALK, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "so it is\n", "")

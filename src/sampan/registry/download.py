"""One file by its address, for ADD and for what is imported from a URL."""

from __future__ import annotations

import hashlib
import os
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError

from sampan import __version__
from sampan.errors import InvalidArgument, Unavailable
from sampan.registry.proxies import proxy_of
from sampan.registry.transport import through

_BLOCK = 1 << 20
_TIMEOUT = urllib3.Timeout(connect=10.0, read=60.0)


def fetch(url: str, path: str) -> str:
    """Write what lies at ``url`` (http, https) to ``path``; its digest. Blocks.

    The file's time is when the server says that it was changed, 1970 if it says nothing.

    Raises InvalidArgument for a bad URL and Unavailable when it cannot be had.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidArgument(f"{url} is no http or https URL")
    pool = through(proxy_of(url))
    digest = hashlib.sha256()
    try:
        answer = pool.request(
            "GET",
            url,
            headers={"User-Agent": f"sampan/{__version__}"},
            preload_content=False,
            timeout=_TIMEOUT,
        )
        with open(path, "wb") as file:
            if answer.status != 200:
                raise InvalidArgument(f"invalid response status {answer.status} for {url}")
            while block := answer.read(_BLOCK, decode_content=False):
                digest.update(block)
                file.write(block)
        changed = _seconds(answer.headers.get("Last-Modified", ""))
        os.utime(path, (changed, changed))
    except (HTTPError, OSError) as error:
        raise Unavailable(f"failed to load {url}: {error}") from error
    finally:
        pool.clear()
    return f"sha256:{digest.hexdigest()}"


def _seconds(moment: str) -> int:
    """A header's date, in seconds since 1970."""
    try:
        return max(0, int(parsedate_to_datetime(moment).timestamp()))
    except (TypeError, ValueError, OverflowError):
        return 0

"""JSON that others wrote, read as Go reads it.

Laws: the one failure is ValueError, for nesting that the interpreter cannot follow, too. Every text can be
written again: half a surrogate, which JSON can escape and UTF-8 cannot hold, becomes U+FFFD, so that nobody's
document makes an answer of ours impossible.
"""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


def decode(raw: bytes | str) -> Any:
    """The value of a whole JSON text."""
    try:
        text = raw if isinstance(raw, str) else raw.decode(json.detect_encoding(raw), "surrogatepass")
        value = json.loads(text)
        if _ESCAPED.search(text) or _SURROGATE.search(text):
            value = json.loads(_SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False)))
    except RecursionError as error:
        raise ValueError("exceeded max depth") from error
    return value

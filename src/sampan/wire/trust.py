"""Whom TLS clients trust: the same for every version of Python, and the same as Docker.

Law: a server is accepted here if Docker, which is written in Go, accepts it. Go takes every certificate that
it is given as an end of the chain, an intermediate authority's too, and asks an authority for no "key usage";
the certificates that Docker's documentation makes by openssl have none. The default context of Python 3.13,
unlike those before it, refuses these.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl


def trusting(authority: str = "") -> ssl.SSLContext:
    """Trusts those whom the file ``authority`` names; the host's authorities where it is "".

    OSError or ssl.SSLError for a file that cannot be used.
    """
    import ssl  # 4 MB that who trusts nobody need not have

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if authority:
        context.load_verify_locations(authority)
    else:
        context.load_default_certs()
    return context

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Callable, Iterator

import pytest
from tests.unit.registry.servers import HANG_UP, Asked, Instant, Registry, Reply, registry, repository

from sampan.errors import Failure, Forbidden, InvalidArgument, NotFound, Unauthenticated, Unavailable
from sampan.registry.credentials import Credentials
from sampan.registry.repository import Blob
from sampan.registry.transport import ATTEMPTS, Broken, Cancelled, retry_after
from sampan.spec import digest as digests
from sampan.spec.image import DOCKER_MANIFEST

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = digests.of(MANIFEST)
ALICE = Credentials(username="alice", password="secret")
BASIC = "Basic " + base64.b64encode(b"alice:secret").decode()


@pytest.fixture
def remote() -> Iterator[Registry]:
    with registry() as found:
        yield found


def _error(code: str, message: str = "m") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message}]}).encode()


def _manifest(_asked: Asked) -> Reply:
    return Reply(body=MANIFEST, headers={"Content-Type": DOCKER_MANIFEST})


# ------------------------------------------------------------------ manifests


def test_a_manifest_is_asked_for_by_every_type_and_digested(remote: Registry) -> None:
    remote.answer = _manifest
    found = repository(remote).manifest("latest")
    assert (found.raw, found.digest, found.media_type) == (MANIFEST, DIGEST, DOCKER_MANIFEST)
    asked = remote.asked[-1]
    assert asked.path == "/v2/a/b/manifests/latest"
    assert "application/vnd.oci.image.index.v1+json" in asked.headers["Accept"]
    assert DOCKER_MANIFEST in asked.headers["Accept"]


def test_another_manifest_than_the_digest_says_is_refused(remote: Registry) -> None:
    remote.answer = _manifest
    wanted = digests.of(b"other")
    with pytest.raises(Unavailable, match=f"manifest verification failed for digest {wanted}"):
        repository(remote).manifest(wanted)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (
            404,
            _error("MANIFEST_UNKNOWN"),
            NotFound,
            "manifest for example/a/b:x not found: manifest unknown: m",
        ),
        (404, _error("NAME_UNKNOWN"), NotFound, "repository example/a/b not found: name unknown: m"),
        (
            404,
            b"<html>",
            NotFound,
            "manifest for example/a/b:x not found: received unexpected HTTP status: 404",
        ),
        (
            403,
            _error("DENIED"),
            NotFound,
            "pull access denied for example/a/b, repository does not exist or may require 'docker login': "
            "denied: m",
        ),
        (429, _error("TOOMANYREQUESTS", "slow\ndown"), Unavailable, "toomanyrequests: slow down"),
        (400, _error("MANIFEST_INVALID"), InvalidArgument, "manifest invalid: m"),
        (500, _error("UNKNOWN"), Unavailable, "received unexpected HTTP status: 500 Internal Server Error"),
        (503, b"", Unavailable, "received unexpected HTTP status: 503 Service Unavailable"),
    ],
)
def test_a_refusal_is_told_in_dockers_words(
    remote: Registry, status: int, body: bytes, kind: type[Failure], words: str
) -> None:
    remote.answer = lambda _: Reply(status=status, body=body)
    with pytest.raises(kind) as caught:
        repository(remote).manifest("x")
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_a_manifest_of_schema_1_is_refused(remote: Registry) -> None:
    kind = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    remote.answer = lambda _: Reply(body=b"{}", headers={"Content-Type": kind})
    with pytest.raises(InvalidArgument, match="schema version 1"):
        repository(remote).manifest("x")


def test_a_huge_manifest_is_not_read(remote: Registry) -> None:
    remote.answer = lambda _: Reply(body=bytes(5 << 20))
    with pytest.raises(Unavailable, match="larger than the limit"):
        repository(remote).manifest("x")


def test_tags_come_page_by_page_and_only_from_the_registry(remote: Registry) -> None:
    def answer(asked: Asked) -> Reply:
        if "last=" not in asked.path:
            link = '</v2/a/b/tags/list?last=2>; rel="next"'
            return Reply(body=b'{"tags": ["1", "2"]}', headers={"Link": link})
        link = '<http://198.51.100.1/v2/a/b/tags/list?last=3>; rel="next"'
        return Reply(body=b'{"tags": ["3", 4]}', headers={"Link": link})

    remote.answer = answer
    assert repository(remote).tags() == ["1", "2", "3"]


# ------------------------------------------------------------------ patience


def test_what_passes_is_waited_for(remote: Registry) -> None:
    pauses = Instant()
    answers = iter(
        [
            Reply(status=503),
            Reply(status=429, headers={"Retry-After": "7"}),
            Reply(status=502, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
            Reply(status=504, headers={"Retry-After": "30"}),
            _manifest(Asked(method="", path="", headers={})),
        ]
    )
    remote.answer = lambda _: next(answers)
    assert repository(remote, pauses=pauses).manifest("x").digest == DIGEST
    assert pauses.pauses == [0.25, 7.0, 0.0, 30.0]


def test_a_rate_limit_is_told_at_once_in_the_registrys_words(remote: Registry) -> None:
    words = "You have reached your pull rate limit."
    reply = Reply(status=429, headers={"Retry-After": "21600"}, body=_error("TOOMANYREQUESTS", words))
    remote.answer = lambda _: reply
    pauses = Instant()
    with pytest.raises(Unavailable, match=f"^toomanyrequests: {words}$"):
        repository(remote, pauses=pauses).manifest("x")
    assert pauses.pauses == []


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("", None),
        ("3", 3.0),
        ("-3", None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Thu, 99 Jan 99999999999 00:00:00 GMT", None),
    ],
)
def test_how_long_a_server_asks_for(header: str, seconds: float | None) -> None:
    assert retry_after(header, lambda: 100.0) == seconds


def test_patience_ends(remote: Registry) -> None:
    remote.answer = lambda _: Reply(status=503)
    with pytest.raises(Unavailable):
        repository(remote).manifest("x")
    assert len(remote.asked) == ATTEMPTS


def test_a_cancelled_request_ends(remote: Registry) -> None:
    pauses = Instant()
    pauses.set()
    with pytest.raises(Cancelled):
        repository(remote, pauses=pauses).manifest("x")
    assert remote.asked == []


# ------------------------------------------------------------------ blobs


def test_a_blob_begins_where_it_is_asked_to(remote: Registry) -> None:
    def answer(asked: Asked) -> Reply:
        assert asked.headers["Range"] == "bytes=4-"
        return Reply(status=206, body=b"efgh", headers={"Content-Range": "bytes 4-7/8"})

    remote.answer = answer
    start, blocks = repository(remote).blob(DIGEST, 4)
    assert (start, b"".join(blocks)) == (4, b"efgh")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(body=b"abcdefgh"),
        Reply(status=206, body=b"xx", headers={"Content-Range": "bytes 1-2/8"}),
        Reply(status=416),
    ],
)
def test_a_blob_that_cannot_begin_there_begins_at_the_start(remote: Registry, reply: Reply) -> None:
    remote.answer = lambda asked: reply if "Range" in asked.headers else Reply(body=b"abcdefgh")
    start, blocks = repository(remote).blob(DIGEST, 4)
    assert (start, b"".join(blocks)) == (0, b"abcdefgh")


def test_a_blob_that_breaks_off_says_so(remote: Registry) -> None:
    remote.answer = lambda _: Reply(body=b"abcdefgh", cut=3)
    _, blocks = repository(remote).blob(DIGEST)
    with pytest.raises(Broken):
        list(blocks)


def test_a_missing_blob_is_named(remote: Registry) -> None:
    remote.answer = lambda _: Reply(status=404, body=_error("BLOB_UNKNOWN"))
    with pytest.raises(NotFound, match=f"example/a/b: blob {DIGEST}: blob unknown: m"):
        repository(remote).blob(DIGEST)


# ------------------------------------------------------------------ who asks


class TokenServer:
    """A registry that wants a token, and its token server in one."""

    def __init__(self, remote: Registry, refuse: Callable[[Asked], Reply | None] = lambda _: None) -> None:
        self.remote = remote
        self.refuse = refuse
        remote.answer = self.answer

    def answer(self, asked: Asked) -> Reply:
        if asked.path.startswith("/token"):
            return self.refuse(asked) or Reply(body=b'{"token": "T", "expires_in": 300}')
        if asked.headers.get("Authorization") == "Bearer T":
            return _manifest(asked)
        challenge = f'Bearer realm="{self.remote.url}/token",service="s p",scope="repository:a/b:pull"'
        return Reply(status=401, headers={"WWW-Authenticate": challenge}, body=_error("UNAUTHORIZED"))


def test_a_token_is_fetched_once_and_used_again(remote: Registry) -> None:
    TokenServer(remote)
    found = repository(remote, ALICE)
    found.manifest("x")
    found.manifest("y")
    tokens = [asked for asked in remote.asked if asked.path.startswith("/token")]
    assert [asked.path for asked in tokens] == [
        "/token?service=s+p&scope=repository%3Aa%2Fb%3Apull&account=alice"
    ]
    assert tokens[0].headers["Authorization"] == BASIC
    others = [asked for asked in remote.asked if not asked.path.startswith("/token")]
    assert all("Basic" not in asked.headers.get("Authorization", "") for asked in others)


def test_nobody_gets_a_token_without_showing_anything(remote: Registry) -> None:
    TokenServer(remote)
    repository(remote).manifest("x")
    assert all("Basic" not in asked.headers.get("Authorization", "") for asked in remote.asked)


def test_an_identity_token_is_exchanged(remote: Registry) -> None:
    TokenServer(remote)
    repository(remote, Credentials(identity_token="I")).manifest("x")
    token = next(asked for asked in remote.asked if asked.path == "/token")
    assert token.method == "POST"
    assert b"grant_type=refresh_token" in token.body
    assert b"refresh_token=I" in token.body


def test_a_wrong_password_is_told(remote: Registry) -> None:
    TokenServer(remote, lambda _: Reply(status=401))
    with pytest.raises(Unauthenticated, match="unauthorized: incorrect username or password"):
        repository(remote, ALICE).manifest("x")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"token": ""}', b'{"token": "a\\nb"}', b'{"expires_in": "x"}']
)
def test_a_token_server_that_answers_nonsense(remote: Registry, body: bytes) -> None:
    TokenServer(remote, lambda _: Reply(body=body))
    with pytest.raises(Unauthenticated, match="did not include a token"):
        repository(remote).manifest("x")


def test_basic_credentials_are_shown_when_they_are_asked_for(remote: Registry) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.headers.get("Authorization") == BASIC:
            return _manifest(asked)
        return Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    remote.answer = answer
    assert repository(remote, ALICE).manifest("x").digest == DIGEST
    assert "Authorization" not in remote.asked[0].headers
    with pytest.raises(Unauthenticated, match=r"^no basic auth credentials$"):
        repository(remote).manifest("x")
    with pytest.raises(Unauthenticated, match=r"^unauthorized: authentication required$"):
        repository(remote, Credentials(username="alice", password="wrong")).manifest("x")


@pytest.mark.parametrize(
    ("error", "pull", "push"),
    [
        (
            "insufficient_scope",
            "pull access denied for example/a/b, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied",
            "denied: requested access to the resource is denied",
        ),
        ("invalid_token", *["unauthorized: authentication required"] * 2),
    ],
)
def test_what_a_token_was_not_good_for_is_told(remote: Registry, error: str, pull: str, push: str) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/token"):
            return Reply(body=b'{"token": "T"}')
        challenge = f'Bearer realm="{remote.url}/token",error="{error}"'
        return Reply(status=401, headers={"WWW-Authenticate": challenge}, body=_error("UNAUTHORIZED"))

    remote.answer = answer
    with pytest.raises(Failure) as pulled:
        repository(remote).manifest("x")
    with pytest.raises(Failure) as pushed:
        repository(remote).has_blob(DIGEST)
    assert (str(pulled.value), str(pushed.value)) == (pull, push)


def test_credentials_do_not_follow_a_redirect_to_another_host(remote: Registry) -> None:
    with registry() as other:
        other.answer = lambda _: Reply(body=b"blob")
        registry_token = Credentials(registry_token="R")

        def answer(_asked: Asked) -> Reply:
            return Reply(status=307, headers={"Location": f"{other.url}/elsewhere"})

        remote.answer = answer
        _, blocks = repository(remote, registry_token).blob(DIGEST)
        assert b"".join(blocks) == b"blob"
        assert remote.asked[-1].headers["Authorization"] == "Bearer R"
        assert "Authorization" not in other.asked[-1].headers


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example/x", "/v2/a/b/blobs/again"])
def test_redirects_that_lead_nowhere_end(remote: Registry, target: str) -> None:
    remote.answer = lambda _: Reply(status=302, headers={"Location": target})
    with pytest.raises(Unavailable, match="redirect"):
        repository(remote).blob(DIGEST)


# ------------------------------------------------------------------ uploads


def _blob(data: bytes) -> Blob:
    return Blob(digest=digests.of(data), size=len(data), open=lambda: io.BytesIO(data))


class Store:
    """Takes one upload; ``breaks`` are the lengths after which PATCH requests fail."""

    def __init__(self, remote: Registry, breaks: tuple[int, ...] = ()) -> None:
        self.data = b""
        self.breaks = list(breaks)
        self.finished = ""
        remote.answer = self.answer

    def answer(self, asked: Asked) -> Reply:
        here = {"Location": "/v2/a/b/blobs/uploads/1?state=x", "Range": f"0-{max(len(self.data) - 1, 0)}"}
        if asked.method == "POST":
            return Reply(status=202, headers=here)
        if asked.method == "GET":
            return Reply(status=204, headers=here)
        if asked.method == "PATCH":
            if self.breaks:
                self.data += asked.body[: self.breaks.pop(0)]
                return HANG_UP
            start = asked.headers.get("Content-Range", "0-").partition("-")[0]
            assert int(start) == len(self.data)
            self.data += asked.body
            return Reply(status=202, headers={"Location": "/v2/a/b/blobs/uploads/1?state=y"})
        self.finished = asked.path
        return Reply(status=201)


def test_an_upload_is_begun_sent_and_finished(remote: Registry) -> None:
    store = Store(remote)
    counts: list[int] = []
    blob = _blob(b"x" * 100_000)
    repository(remote).upload(blob, counts.append)
    assert store.data == b"x" * 100_000
    assert store.finished == f"/v2/a/b/blobs/uploads/1?state=y&digest={blob.digest}".replace(":", "%3A")
    assert counts[-1] == 100_000


def test_an_upload_goes_on_where_it_broke(remote: Registry) -> None:
    store = Store(remote, breaks=(10, 1000))
    data = bytes(range(256)) * 100
    repository(remote).upload(_blob(data), lambda _: None)
    assert store.data == data
    starts = [asked.headers.get("Content-Range") for asked in remote.asked if asked.method == "PATCH"]
    assert starts == [None, "10-25599", "1010-25599"]


def test_an_upload_that_never_gets_through_is_given_up(remote: Registry) -> None:
    remote.answer = lambda asked: (
        HANG_UP
        if asked.method == "PATCH"
        else Reply(status=202, headers={"Location": "/v2/u", "Range": "0-0"})
    )
    with pytest.raises(Broken):
        repository(remote).upload(_blob(b"abc"), lambda _: None)


def test_a_refused_upload_is_told(remote: Registry) -> None:
    remote.answer = lambda _: Reply(status=403, body=_error("DENIED", "no"))
    with pytest.raises(Forbidden, match="denied: no"):
        repository(remote).upload(_blob(b"x"), lambda _: None)


def test_an_upload_to_nowhere_is_refused(remote: Registry) -> None:
    remote.answer = lambda _: Reply(status=202, headers={"Location": "file:///etc/passwd"})
    with pytest.raises(Unavailable, match="does not say where to upload"):
        repository(remote).upload(_blob(b"x"), lambda _: None)


def test_a_mount_that_is_refused_leaves_no_upload(remote: Registry) -> None:
    remote.answer = lambda asked: Reply(
        status=202 if asked.method == "POST" else 204, headers={"Location": "/v2/a/b/blobs/uploads/1"}
    )
    assert not repository(remote).mount(DIGEST, "c/d")
    assert remote.paths() == [
        f"POST /v2/a/b/blobs/uploads/?mount={DIGEST}&from=c/d",
        "DELETE /v2/a/b/blobs/uploads/1",
    ]


# ------------------------------------------------------------------ hostile registries


_NO_ADDRESSES = ["http://[", "//[1]/x", "https://[::1", "http://a:99999/", "http://\x7f/"]


@pytest.mark.parametrize("target", _NO_ADDRESSES)
def test_a_redirect_to_what_is_no_address_is_a_failure(remote: Registry, target: str) -> None:
    remote.answer = lambda _: Reply(status=302, headers={"Location": target})
    with pytest.raises(Failure):
        repository(remote).manifest("x")


@pytest.mark.parametrize("target", _NO_ADDRESSES)
def test_an_upload_to_what_is_no_address_is_a_failure(remote: Registry, target: str) -> None:
    remote.answer = lambda _: Reply(status=202, headers={"Location": target})
    blob = Blob(digest=digests.of(b"x"), size=1, open=lambda: io.BytesIO(b"x"))
    with pytest.raises(Failure):
        repository(remote).upload(blob, lambda _: None)


@pytest.mark.parametrize(
    "document",
    [
        b'{"token": "t", "expires_in": 1e999}',
        b'{"token": "t", "expires_in": 1%b}' % (b"0" * 4000),
        b'{"token": "\\u0967"}',
        b'{"token": "a\\r\\nX: y"}',
        b"[" * 100_000,
    ],
)
def test_what_a_token_server_says_is_a_token_or_a_failure(remote: Registry, document: bytes) -> None:
    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/token"):
            return Reply(body=document)
        if "Authorization" in asked.headers:
            return _manifest(asked)
        return Reply(status=401, headers={"WWW-Authenticate": f'Bearer realm="{remote.url}/token"'})

    remote.answer = answer
    with contextlib.suppress(Failure):
        assert repository(remote).manifest("x").raw == MANIFEST


@pytest.mark.parametrize("realm", ["http://[", "https://[1]/", "ftp://x/", "http://a:99999/"])
def test_a_token_server_that_is_no_address_is_a_failure(remote: Registry, realm: str) -> None:
    remote.answer = lambda _: Reply(status=401, headers={"WWW-Authenticate": f'Bearer realm="{realm}"'})
    with pytest.raises(Failure):
        repository(remote).manifest("x")

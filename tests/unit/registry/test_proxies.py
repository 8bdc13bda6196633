from __future__ import annotations

import pytest

from sampan.errors import InvalidArgument
from sampan.registry.proxies import proxy_of, shown

P = {"HTTP_PROXY": "http://p:3128", "HTTPS_PROXY": "q"}


@pytest.mark.parametrize(
    ("url", "exceptions", "found"),
    [
        ("http://r.test/v2/", "", "http://p:3128"),
        ("https://r.test/v2/", "", "http://q:80"),
        ("http://localhost:5000/v2/", "", None),
        ("http://127.8.9.1:5000/v2/", "", None),
        ("http://[::1]:5000/v2/", "", None),
        ("http://r.test/v2/", "*", None),
        ("http://r.test/v2/", "r.test", None),
        ("http://r.test/v2/", "test", None),
        ("http://r.test/v2/", " x , R.Test", None),
        ("http://r.test/v2/", ".r.test", "http://p:3128"),
        ("http://a.r.test/v2/", ".r.test", None),
        ("http://a.r.test/v2/", "*.r.test", None),
        ("http://ar.test/v2/", "r.test", "http://p:3128"),
        ("http://r.test:5000/v2/", "r.test:5000", None),
        ("http://r.test:5001/v2/", "r.test:5000", "http://p:3128"),
        ("http://r.test/v2/", "r.test:80", None),
        ("http://10.1.2.3/v2/", "10.0.0.0/8", None),
        ("http://11.1.2.3/v2/", "10.0.0.0/8,nonsense/x", "http://p:3128"),
        ("http://10.1.2.3:5000/v2/", "10.1.2.3", None),
        ("http://10.1.2.3:5000/v2/", "10.1.2.3:5001", "http://p:3128"),
        ("http://10.1.2.3/v2/", "2.3", "http://p:3128"),
        ("http://[fd00::1]:5000/v2/", "fd00::1", None),
        ("http://[fd00::1]:5000/v2/", "[fd00::1]:5000", None),
        ("http://[fd00::1]:5000/v2/", "fd00::/8", None),
        ("http://r.test/v2/", "fd00::/8", "http://p:3128"),
    ],
)
def test_who_is_asked_through_a_proxy(url: str, exceptions: str, found: str | None) -> None:
    proxy = proxy_of(url, {**P, "NO_PROXY": exceptions})
    assert (proxy and proxy.url) == found


def test_the_environment_is_read_as_go_reads_it() -> None:
    both = {"http_proxy": "lower", "HTTP_PROXY": "upper"}
    found = proxy_of("http://r.test/", both)
    assert found is not None
    assert found.url == "http://upper:80"
    assert proxy_of("http://r.test/", {"http_proxy": "lower", "no_proxy": "r.test"}) is None
    assert proxy_of("https://r.test/", {"http_proxy": "lower"}) is None


def test_a_proxy_learns_who_asks() -> None:
    found = proxy_of("http://r.test/", {"http_proxy": "http://a%40b:c@[fd00::1]:8080/"})
    assert found is not None
    assert found.url == "http://[fd00::1]:8080"
    assert found.headers == {"Proxy-Authorization": "Basic YUBiOmM="}


@pytest.mark.parametrize("given", ["socks5://p:1", "http://p:x", "http://[", "http://"])
def test_a_proxy_that_cannot_be_used_is_told(given: str) -> None:
    with pytest.raises(InvalidArgument, match="the environment names a proxy"):
        proxy_of("http://r.test/", {"HTTP_PROXY": given})


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("", ""),
        ("p:3128", "p:3128"),
        ("http://p:3128/", "http://p:3128/"),
        ("http://me:secret@p:3128", "http://xxxxx:xxxxx@p:3128"),
        ("http://me:se@cret@p:3128", "http://xxxxx:xxxxx@p:3128"),
        ("me:secret@p:3128", "xxxxx:xxxxx@p:3128"),
    ],
)
def test_what_anybody_may_see_of_a_proxy(given: str, seen: str) -> None:
    environment = {"HTTP_PROXY": given, "https_proxy": given, "NO_PROXY": "a,b"}
    assert shown(environment) == (seen, seen, "a,b")

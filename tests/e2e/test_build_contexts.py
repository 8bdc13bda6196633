"""Contexts and sources that the engine fetches: git repositories, archives and Dockerfiles at an address."""

from __future__ import annotations

import hashlib
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.e2e import images
from tests.e2e.building import NAME, Builder, nothing_left, own_builder
from tests.e2e.serving import Daemon

__all__ = ["nothing_left", "own_builder"]

pytestmark = [pytest.mark.root, pytest.mark.e2e]

AUTHOR = {
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "1700000000 +0000",
    "GIT_COMMITTER_DATE": "1700000000 +0000",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "protocol.file.allow=always", *words],
        env={**os.environ, **AUTHOR},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def repository(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Plain files, and ``/git/`` by git's own program."""

    root: Path
    asked: list[str]

    def _git(self) -> None:
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            env={
                **os.environ,
                **AUTHOR,
                "GIT_PROJECT_ROOT": str(self.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path.removeprefix("/git"),
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            },
            capture_output=True,
            check=False,
        )
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().splitlines())
        self.send_response(int(lines.pop("Status", "200").split(" ")[0]))
        for name, value in lines.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest)

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path.startswith("/git/"):
            self._git()
        else:
            super().do_GET()

    do_POST = _git  # noqa: N815 - the library's name

    def log_message(self, *_arguments: object) -> None:
        pass


class Served:
    """``root`` is served: repositories at ``git``, files at ``files``."""

    def __init__(self, root: Path, address: str, asked: list[str]) -> None:
        self.root = root
        self.git = f"{address}/git"
        self.files = address
        self.asked = asked


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    asked: list[str] = []
    kind = type("Handler", (_Handler,), {"root": root, "asked": asked})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *arguments: kind(*arguments, directory=str(root))
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Served(root, f"http://127.0.0.1:{server.server_address[1]}", asked)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def project(served: Served) -> str:
    """The address of a repository with a submodule, a tag, a hook and attributes that leave files out."""
    repository(served.root / "part.git", {"s.txt": "part"})
    main = served.root / "main.git"
    repository(
        main,
        {
            "Dockerfile": f"FROM {images.NAME}\nCOPY . /x\n",
            "dir/Dockerfile": f"FROM {images.NAME}\nCOPY . /y\n",
            ".gitattributes": "Dockerfile export-ignore\n* filter=evil\n",
        },
    )
    git(main, "tag", "-a", "-m", "one", "v1")
    git(main, "submodule", "--quiet", "add", str(served.root / "part.git"), "mod")
    git(main, "config", "-f", ".gitmodules", "submodule.mod.url", "../part.git/.git")
    (main / "link").symlink_to("/etc/passwd")
    git(main, "add", ".")
    git(main, "commit", "-q", "-m", "second")
    return f"{served.git}/main.git"


def test_a_repository(builder: Builder, project: str, served: Served) -> None:
    def build(fragment: str, *flags: str) -> str:
        done = builder.run("build", "-t", NAME, *flags, f"{project}{fragment}")
        return done.stdout if done.returncode == 0 else done.stderr

    build("")
    assert builder.sh("cd /x; find . | sort; cat mod/s.txt; readlink link; stat -c %Y Dockerfile") == (
        ".\n./.gitattributes\n./.gitmodules\n./Dockerfile\n./dir\n./dir/Dockerfile\n./link\n./mod\n"
        "./mod/s.txt\npart/etc/passwd\n1700000000\n"
    )
    # The same commit is the same context.
    assert "Using cache" in build("#main")
    build("#v1:dir")
    assert builder.sh("find /y") == "/y\n/y/Dockerfile\n"
    build("", "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1")
    head = git(served.root / "main.git", "rev-parse", "HEAD")
    assert builder.sh("cat /x/.git/HEAD") == f"{head}\n"
    build(f"?commit={head[:10]}&ref=main")
    assert build("?commit=0123456789") == (
        f"Error response from daemon: digest mismatch for {project}: got commit {head}, expected 0123456789\n"
    )
    assert build("#none") == (
        f'Error response from daemon: repository {project} does not contain ref "none"\n'
    )
    assert build("#main:none") == f"Error response from daemon: subdir not found: none in {project}\n"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://127.0.0.1:1/x.git#--upload-pack=touch", 'invalid ref "--upload-pack=touch"'),
        ("git://-oProxyCommand=x/y", "is no address of a git repository that may be fetched"),
        ("git://127.0.0.1/x#main:../../etc", "leads out of it"),
        ("ext::sh -c x", "could not be recognized as URL"),
        ("file:///etc", "could not be recognized as URL"),
        ("/etc", "could not be recognized as URL"),
    ],
)
def test_an_address_that_leads_elsewhere(daemon: Daemon, address: str, said: str) -> None:
    client = docker.APIClient(base_url=daemon.host, version="1.41")
    answer = client.post(client._url("/build"), params={"remote": address})
    assert answer.status_code == 400
    assert said in answer.json()["message"]
    client.close()


def test_a_submodule_of_the_host_is_refused(builder: Builder, served: Served) -> None:
    repository(served.root / "other", {"secret": "x"})
    main = served.root / "hostile.git"
    repository(main, {"Dockerfile": f"FROM {images.NAME}\n"})
    git(main, "submodule", "--quiet", "add", str(served.root / "other"), "mod")
    git(main, "commit", "-q", "-m", "second")
    done = builder.run("build", f"{served.git}/hostile.git")
    assert done.returncode == 1
    assert "is no address of a git repository that may be fetched" in done.stderr


def test_add_of_a_repository(builder: Builder, project: str, served: Served) -> None:
    head = git(served.root / "main.git", "rev-parse", "HEAD")
    text = f"FROM {images.NAME}\nADD --keep-git-dir=true --checksum={head} {project} /repo\n"
    builder.built(f"{text}ADD {project}#v1:dir /dir\n")
    assert builder.sh("cd /repo; ls -A; cat mod/s.txt; ls /dir") == (
        ".git\n.gitattributes\n.gitmodules\nDockerfile\ndir\nlink\nmod\npartDockerfile\n"
    )
    served.asked.clear()
    assert builder.built(text).count("Using cache") == 1
    assert served.asked == []  # a commit is what it was
    done = builder.build(f"FROM {images.NAME}\nADD --checksum={'0' * 40} {project} /repo\n")
    assert "digest mismatch" in done.stderr


def test_files_at_an_address(builder: Builder, served: Served, tmp_path: Path) -> None:
    (served.root / "Dockerfile").write_text(f"FROM {images.NAME}\nRUN echo one > /one\n")
    assert builder.run("build", "-t", NAME, f"{served.files}/Dockerfile").returncode == 0
    assert builder.sh("cat /one") == "one\n"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/Other").write_text(f"FROM {images.NAME}\nCOPY file /two\n")
    (tmp_path / "tree/file").write_text("two\n")
    archive = served.root / "context.tar.gz"
    subprocess.run(["tar", "-C", str(tmp_path / "tree"), "-czf", str(archive), "."], check=True)
    done = builder.run("build", "-t", NAME, "-f", "Other", f"{served.files}/context.tar.gz")
    assert done.returncode == 0, done.stderr
    assert builder.sh("cat /two") == "two\n"
    (served.root / "junk").write_bytes(b"\0\1\2")
    done = builder.run("build", f"{served.files}/junk")
    assert "is neither an archive nor a Dockerfile" in done.stderr
    assert "invalid response status 404" in builder.run("build", f"{served.files}/none").stderr


def test_a_file_with_a_checksum_is_fetched_once(builder: Builder, served: Served) -> None:
    path = served.root / "file"
    path.write_text("data\n")
    os.utime(path, (1600000000, 1600000000))
    digest = hashlib.sha256(b"data\n").hexdigest()
    text = f"FROM {images.NAME}\nADD --checksum=sha256:{digest} {served.files}/file /file\n"
    builder.built(text)
    assert builder.sh("stat -c '%a %Y' /file; cat /file") == "600 1600000000\ndata\n"
    served.asked.clear()
    builder.built(text)
    assert served.asked == []
    done = builder.build(text.replace(digest, "0" * 64))
    assert f"digest mismatch for {served.files}/file: got sha256:{digest}" in done.stderr

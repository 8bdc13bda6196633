"""Flags of RUN, COPY and ADD against BuildKit's reference."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.e2e import images
from tests.e2e.building import NAME, Builder, nothing_left, own_builder

__all__ = ["nothing_left", "own_builder"]

pytestmark = [pytest.mark.root, pytest.mark.e2e]
FROM = f"FROM {images.NAME}"


def test_symbolic_modes(builder: Builder) -> None:
    builder.file("d/f", "f", 0o600)
    builder.file("d/x", "x", 0o700)
    builder.built(f"{FROM}\nCOPY --chmod=u=rwX,go=rX d /d\nADD --chmod=+x d/f /f\n")
    assert builder.sh("stat -c '%a %n' /d /d/f /d/x /f") == "755 /d\n644 /d/f\n755 /d/x\n711 /f\n"
    assert "invalid chmod parameter: 'u+q'" in builder.build(f"{FROM}\nCOPY --chmod=u+q d /d\n").stderr


def test_parents_keep_folders_from_their_pivot_on(builder: Builder) -> None:
    for name in ("a/b/c/one.txt", "a/b/two.txt", "a/three.md", "a/b/[x].txt"):
        builder.file(name, name)
    (builder.folder / "a/b").chmod(0o750)
    builder.built(
        f"{FROM}\nCOPY --parents a/b/c/one.txt a/three.md /all/\nCOPY --parents ./a/./b/*.txt /from/\n"
        "COPY --parents **/*.txt /deep/\nCOPY --parents a/./b /folder/\nCOPY a/b/[[]x].txt /plain/\n"
    )
    assert builder.sh("for d in all from deep folder plain; do (cd /$d; find . -type f | sort); done") == (
        "./a/b/c/one.txt\n./a/three.md\n"
        "./b/[x].txt\n./b/two.txt\n"
        "./a/b/[x].txt\n./a/b/c/one.txt\n./a/b/two.txt\n"
        "./b/[x].txt\n./b/c/one.txt\n./b/two.txt\n"
        "./[x].txt\n"
    )
    assert builder.sh("stat -c %a /all/a/b /from/b") == "750\n750\n"


def test_excluded_files(builder: Builder) -> None:
    for name in ("d/a.txt", "d/b.md", "d/sub/c.txt", "d/sub/d.md"):
        builder.file(name, name)
    builder.built(
        f"{FROM}\nCOPY --exclude=*.txt d /one\nCOPY --exclude=**/*.txt --exclude=!sub/c.txt d /two\n"
        "COPY --exclude=sub d /three\n"
    )
    assert builder.sh("for d in one two three; do (cd /$d; find . -type f | sort); done") == (
        "./b.md\n./sub/c.txt\n./sub/d.md\n./b.md\n./sub/c.txt\n./sub/d.md\n./a.txt\n./b.md\n"
    )


def test_a_linked_copy_looks_at_nothing_below(builder: Builder) -> None:
    builder.file("f", "f")
    builder.built(
        f"{FROM}\nRUN mkdir /real && ln -s /real /way && ln -s /real /other\n"
        "COPY --link f /way/\nCOPY f /other/\n"
    )
    assert builder.sh("ls /real; test -L /way || ls /way; readlink /other") == "f\nf\n/real\n"


def test_cache_mounts(builder: Builder) -> None:
    builder.built(
        f"{FROM} AS seed\nRUN mkdir /s && echo seed > /s/f && chown 7 /s\n{FROM}\n"
        "RUN --mount=type=cache,target=/c,from=seed,source=/s cat /c/f > /1 && stat -c %u /c >> /1"
        " && echo more >> /c/f\n"
        "RUN --mount=type=cache,target=/c,from=seed,source=/s cat /c/f > /2\n"
        "RUN --mount=type=cache,target=/c,id=own,mode=0700,uid=3 stat -c '%a %u' /c > /3 && ls /c >> /3\n"
        "RUN --mount=type=cache,target=/c,id=own,sharing=locked,readonly ! touch /c/x 2> /dev/null\n"
        "RUN --mount=type=tmpfs,target=/t,size=1m df -k /t | tail -n 1 | awk '{print $2}' > /4\n"
        """RUN --mount='type=bind,"target=/with,comma",rw' touch "/with,comma/x"\n"""
    )
    assert builder.sh("cat /1 /2 /3 /4; ls /t /c 2>&1 | wc -l") == "seed\n7\nseed\nmore\n700 3\n1024\n2\n"


def test_cache_mounts_go_elsewhere_and_come_back(builder: Builder, tmp_path: Path) -> None:
    step = f"{FROM}\nRUN --mount=type=cache,target=/kept,id=kept"
    builder.built(f"{step} mkdir -m 750 /kept/d && echo x > /kept/d/f && chown 7:8 /kept/d/f\n")
    assert builder.run("builder", "mounts", "-q").stdout == "kept\n"
    shown = builder.run("builder", "mounts", "--format", "{{.ID}} {{.InUse}} {{.LastUsed}}").stdout
    assert (shown.startswith("kept false "), "years" in shown) == (True, False), shown
    archive = tmp_path / "kept.tar"
    assert builder.run("builder", "export-mount", "kept", "-o", str(archive)).returncode == 0
    there = builder.run("builder", "import-mount", "kept", str(archive))
    assert (there.returncode, "cache mount kept is there already" in there.stderr) == (1, True)
    assert builder.run("builder", "import-mount", "other", str(archive)).stdout == "other\n"
    assert builder.run("builder", "mounts", "-q").stdout == "kept\nother\n"
    builder.built(
        f"{step.replace('id=kept', 'id=other')} cd /kept; stat -c '%a %u %g' d d/f > /1 && cat d/f >> /1\n"
    )
    assert builder.sh("cat /1") == "750 0 0\n644 7 8\nx\n"
    builder.run("builder", "prune", "-af")
    assert builder.run("builder", "mounts", "-q").stdout == ""
    none = builder.run("builder", "export-mount", "kept")
    assert (none.returncode, none.stderr) == (1, "Error response from daemon: no such cache mount: kept\n")


def test_a_hostile_archive_makes_no_cache_mount(builder: Builder, tmp_path: Path) -> None:
    """One that leads out of it, and one that is cut off: nothing of it stays."""
    link = tarfile.TarInfo("out")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    file = tarfile.TarInfo("out/escaped")
    file.size = 1
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        archive.addfile(link)
        archive.addfile(file, io.BytesIO(b"x"))
    (tmp_path / "cut.tar").write_bytes((tmp_path / "bad.tar").read_bytes()[:700])
    for name in ("bad.tar", "cut.tar"):
        builder.run("builder", "import-mount", "bad", str(tmp_path / name))
        assert not (tmp_path / "escaped").exists()
    done = builder.run("builder", "import-mount", "cut", str(tmp_path / "cut.tar"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cut" not in builder.run("builder", "mounts", "-q").stdout.split()
    assert builder.run("builder", "import-mount", "", str(tmp_path / "cut.tar")).returncode == 1


def test_a_mount_point_leaves_nothing(builder: Builder) -> None:
    """Nor the directory of the base in which it was made."""
    builder.built(f"{FROM}\nRUN --mount=type=cache,target=/etc/s --mount=type=tmpfs,target=/n/w true\n")
    one, base = (
        json.loads(builder.run("image", "inspect", name).stdout)[0]["RootFS"]["Layers"]
        for name in (NAME, images.NAME)
    )
    assert one == base


def test_private_mounts_are_had_alone(builder: Builder) -> None:
    """Two steps at once: one waits in the mount for the other, which is in another."""
    stage = (
        f"{FROM} AS s%d\nRUN --mount=type=cache,target=/c,id=p,sharing=private"
        " --mount=type=cache,target=/meet,id=meet"
        " touch /c/here /meet/%d && until [ -e /meet/%d ]; do sleep 0.01; done && ls /c | wc -l > /n\n"
    )
    builder.built(
        stage % (1, 1, 2)
        + stage.replace("/c/here", "/c/there") % (2, 2, 1)
        + f"{FROM}\nCOPY --from=s1 /n /1\nCOPY --from=s2 /n /2\n"
    )
    assert builder.sh("cat /1 /2") == "1\n1\n"


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ("type=cache,target=/c,sharing=odd", 'unsupported sharing value "odd"'),
        ("type=bind,target=/c,size=3", "unexpected key 'size' for mount type 'bind'"),
        ("type=cache,target", "invalid field 'target' must be a key=value pair"),
        ("type=odd,target=/c", 'unsupported mount type "odd"'),
        ("target=/c,odd=1", "unexpected key 'odd' in 'odd=1'"),
        ("type=tmpfs,target=/c,size=much", 'invalid size: "much"'),
    ],
)
def test_a_bad_mount(builder: Builder, mount: str, said: str) -> None:
    assert said in builder.build(f"{FROM}\nRUN --mount={mount} true\n").stderr


def test_device_nodes_and_other_rights(builder: Builder) -> None:
    nodes = f"{FROM}\nRUN mknod /n c 1 3\n"
    assert "Operation not permitted" in builder.build(nodes).stdout
    builder.built(nodes, "--security-opt", "userns=host")
    assert builder.sh("stat -c '%F %t %T' /n") == "character special file 1 3\n"
    mounting = f"{FROM}\nRUN --security=insecure mkdir /m && mount -t tmpfs none /m && touch /m/x\n"
    assert "security.insecure is not allowed: it takes --allow security.insecure" in (
        builder.build(mounting).stderr
    )
    builder.built(mounting, "--allow", "security.insecure")
    assert builder.sh("ls /m | wc -l") == "0\n"
    assert "invalid entitlement: odd" in builder.build(mounting, "--allow", "odd").stderr


def test_checks_build_nothing(builder: Builder) -> None:
    done = builder.build(f"{FROM}\nMAINTAINER me\nRUN false\n", "--check")
    assert done.returncode == 1
    assert "WARNING: MaintainerDeprecated\n" in done.stdout
    assert done.stderr == "lint violation found\n"
    done = builder.build(f"{FROM}\nRUN false\n", "--check")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Check complete, no warnings found.")
    done = builder.build(f"# check=error=true\n{FROM}\nMAINTAINER me\n")
    assert "lint violation found for rules: MaintainerDeprecated\nDockerfile:3\n" in done.stderr


def test_one_layer_over_the_base(builder: Builder) -> None:
    text = (
        f"{FROM} AS below\nRUN mkdir -p /d/gone /d/kept && touch /d/gone/x /d/kept/y /d/f /old\n"
        "FROM below\nRUN rm -r /d/gone /old && echo 2 > /d/f && ln /d/f /d/g\n"
        "RUN mkdir /d/gone && touch /d/gone/new && rm -r /d/kept && mkfifo /p && chown 5:6 /p\n"
        "RUN rm /d/f && touch /temporary\nRUN rm /temporary && chmod 700 /d\nENV A=1\n"
    )
    builder.built(text)
    look = (
        "cd /; find d p -exec stat -c '%n %F %a %u' {} ';' | sort; cat /d/g; ls /old /temporary 2>&1 | wc -l"
    )
    files = builder.sh(look)
    layers = json.loads(builder.run("image", "inspect", NAME).stdout)[0]["RootFS"]["Layers"]
    builder.built(text, "--squash")
    assert builder.sh(look) == files
    found = json.loads(builder.run("image", "inspect", NAME).stdout)[0]
    assert found["RootFS"]["Layers"][:-1] == layers[:-4]
    assert found["Config"]["Env"][-1] == "A=1"
    lines = builder.run(
        "history", "--no-trunc", "--format", "{{.Comment}}|{{.Size}}", NAME
    ).stdout.splitlines()
    assert lines[0].startswith("merge sha256:")
    assert lines[1:6] == ["|0B"] * 5

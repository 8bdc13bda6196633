"""Record what the real docker CLI does, for the tests to compare ours with.

    python -m tests.golden.record [DOCKER]

writes ``docker-create.json`` (flags of ``create`` in create-flags.txt: exit code, message, request) and
``docker-templates.json`` (templates of ``inspect --format`` in templates.txt: exit code, output, message).
Recorded with docker 28.2.2.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.golden.recorder import Recorder

HERE = Path(__file__).parent

FILES = {
    "ef": "# c\nA=1\n\n  B=2\nHOME\nNOPE\nC= 3 \n=bad\n",
    "ef0": '# c\nA=1\n\n  B=2\nHOME\nNOPE\nC= 3 \nD="q"\n',
    "ef2": "A=1\nHOME\nX Y=1\n",
    "ef3": "A=1\n=2\n",
    "ef4": "\ufeffA=1\n",
    "lf": "a=1\n#x\nb\n",
    "prof.json": '{"a": 1,  "b":[ 1 , 2 ]}',
    "taken": "",
}
"""Files that the recorded flags name."""

ENVIRONMENT = {"HOME": "/root", "PATH": os.environ.get("PATH", "")}

CONTAINER: dict[str, Any] = json.loads((HERE / "container.json").read_text())
"""What ``inspect x`` finds."""


def changed(before: Any, after: Any, path: str = "") -> dict[str, Any]:
    """The leaves of ``after`` that differ from ``before``, by dotted path; None for what is gone."""
    found: dict[str, Any] = {}
    for key in sorted({*before, *after}):
        one, two = before.get(key), after.get(key)
        if isinstance(one, dict) and isinstance(two, dict):
            found |= changed(one, two, f"{path}{key}.")
        elif one != two or (key in before) != (key in after):
            found[path + key] = two if key in after else "(absent)"
    return found


def place(text: str, folder: str) -> str:
    """``text`` without the name of the folder where it ran."""
    return text.replace(folder, "{folder}").replace(os.path.dirname(folder), "{parent}")


def _create(docker: str) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as parent:
        folder = os.path.join(parent, "work")
        os.mkdir(folder)
        for name, text in FILES.items():
            Path(folder, name).write_text(text)
        recorder = Recorder(Path(folder, "socket"))
        environment = {**ENVIRONMENT, "DOCKER_HOST": f"unix://{folder}/socket"}

        def ask(flags: str) -> tuple[int, str, list[tuple[str, Any]]]:
            recorder.requests.clear()
            done = subprocess.run(
                [docker, "create", *shlex.split(flags), "x"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd=folder,
                env=environment,
                check=False,
            )
            return done.returncode, done.stderr, list(recorder.requests)

        base = ask("")[2][0][1]
        for flags in (HERE / "create-flags.txt").read_text().splitlines():
            code, message, requests = ask(flags)
            row: dict[str, Any] = {"flags": flags, "code": code, "message": place(message, folder)}
            if requests:
                row["request"] = requests[0][0]
                row["body"] = json.loads(place(json.dumps(changed(base, requests[0][1])), folder))
            rows.append(row)
        recorder.close()
    return [{"flags": "", "base": base}, *rows]


def _templates(docker: str) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder, "socket"), {"GET /containers/x/json": CONTAINER})
        environment = {**ENVIRONMENT, "DOCKER_HOST": f"unix://{folder}/socket"}
        for line in (HERE / "templates.txt").read_text().splitlines():
            template = line.encode().decode("unicode_escape") if "\\n" in line else line
            done = subprocess.run(
                [docker, "inspect", "--format", template, "x"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=environment,
                check=False,
            )
            rows.append(
                {
                    "template": template,
                    "code": done.returncode,
                    "output": done.stdout,
                    "message": done.stderr,
                }
            )
        recorder.close()
    return rows


def _write(name: str, rows: list[dict[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (HERE / name).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    program = sys.argv[1] if len(sys.argv) > 1 else "docker"
    _write("docker-create.json", _create(program))
    _write("docker-templates.json", _templates(program))

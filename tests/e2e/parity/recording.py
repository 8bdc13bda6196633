"""What dockerd answered, by scene and call: tests/golden/parity.json, written by tools/record-parity."""

from __future__ import annotations

import json
import os

from tests.e2e.parity.scene import Answer

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../golden/parity.json")

CLIENT = "28"  # the major version of the client that was used: its own words are recorded too

Recording = dict[str, dict[str, Answer]]


def read() -> Recording:
    """Empty before the first recording."""
    if not os.path.exists(PATH):
        return {}
    with open(PATH) as file:
        document = json.load(file)
    return {
        scene: {call: Answer(code=code, out=out, err=err) for call, (code, out, err) in answers.items()}
        for scene, answers in document.items()
    }


def write(recording: Recording) -> None:
    """One call a line, so that a difference between two recordings reads."""
    scenes = []
    for scene, answers in recording.items():
        calls = [
            f"  {json.dumps(call)}: {json.dumps([answer.code, answer.out, answer.err])}"
            for call, answer in answers.items()
        ]
        scenes.append(f" {json.dumps(scene)}: {{\n" + ",\n".join(calls) + "\n }")
    with open(PATH, "w") as file:
        file.write("{\n" + ",\n".join(scenes) + "\n}\n")

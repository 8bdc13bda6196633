"""python -m tests.chaos --seed N --kills N [--load N] [--mix MIX] [--minutes M] [--tally FILE]"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.chaos import work
from tests.chaos.rounds import Report, play


def main() -> int:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=50, help="end after so many")
    parser.add_argument("--minutes", type=float, default=0, help="or after so long")
    parser.add_argument("--load", type=int, default=4, help="clients at once")
    parser.add_argument("--mix", choices=[*work.MIXES, "turns"], default="turns", help="turns: by the seed")
    parser.add_argument("--tally", help="a file in which the counts of many runs are added up")
    parser.add_argument("--keep", default="", help="a directory for the logs after a violation")
    parser.add_argument("-v", "--verbose", action="store_true")
    given = parser.parse_args()
    mix = given.mix if given.mix != "turns" else list(work.MIXES)[given.seed % len(work.MIXES)]
    print(f"seed {given.seed}, mix {mix}, {given.load} clients", flush=True)
    report = play(
        seed=given.seed,
        kills=given.kills,
        load=given.load,
        mix=mix,
        minutes=given.minutes,
        verbose=given.verbose,
        keep=given.keep,
    )
    show(report)
    if given.tally:
        tally(Path(given.tally), report)
    return 1 if report.violations else 0


def show(report: Report) -> None:
    print(f"{report.kills.total()} kills in {report.rounds} rounds, {report.seconds:.0f} s")
    print(f"killed: {dict(report.kills)}")
    print(f"nobody to kill: {dict(report.missed)}")
    print(f"{report.asked.total()} operations: {dict(report.asked)}")
    unanswered = sum(number for what, number in report.answered.items() if not what.endswith(" done"))
    print(f"{unanswered} of them without a good answer")
    for text in report.violations:
        print(f"VIOLATION (seed {report.seed}): {text}")


def tally(path: Path, report: Report) -> None:
    """Add the counts of a run to those of the runs before it."""
    told: dict[str, Any] = {"runs": [], "kills": {}, "asked": {}, "answered": {}}
    if path.exists():
        told = json.loads(path.read_text())
    document: dict[str, Any] = {
        "seed": report.seed,
        "mix": report.mix,
        "rounds": report.rounds,
        "seconds": report.seconds,
        "violations": report.violations,
        "kills": report.kills,
        "asked": report.asked,
        "answered": report.answered,
    }
    told["runs"].append({key: document[key] for key in ("seed", "mix", "rounds", "seconds", "violations")})
    for key in ("kills", "asked", "answered"):
        told[key] = dict(Counter(told[key]) + Counter(document[key]))
    path.write_text(json.dumps(told, indent=1))
    os.sync()


if __name__ == "__main__":
    sys.exit(main())

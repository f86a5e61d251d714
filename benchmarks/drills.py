"""Drills of changes under load: real processes on loopback, callers who go on asking, and what they got.

    python benchmarks/drills.py                  # everything, some half an hour; prints the tables
    python benchmarks/drills.py --quick          # a tenth of it
    python benchmarks/drills.py --only kills     # one of them
    python benchmarks/drills.py --only harm --long

Times are seen by the callers: from the moment of the command, or of the first bad answer, to the last answer.
"""

from __future__ import annotations

import argparse
import functools
import sys

from drill_changes import rollbacks, split, updates
from drill_deaths import heads, kills, restart
from drill_harm import harm
from drill_overload import overload

DRILLS = {
    "updates": updates,
    "rollbacks": rollbacks,
    "split": split,
    "kills": kills,
    "heads": heads,
    "restart": restart,
    "harm": harm,
    "overload": overload,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--only", choices=DRILLS)
    parser.add_argument("--long", action="store_true", help="versions that fail 2 % too: some minutes each")
    options = parser.parse_args()
    chosen = {**DRILLS, "harm": functools.partial(harm, long=options.long)}
    for name, run in chosen.items():
        if options.only not in (None, name):
            continue
        print(f"\n{name}\n\n| what | result |\n|---|---|", flush=True)
        for what, figure in run(0.1 if options.quick else 1.0):
            print(f"| {what} | {figure} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

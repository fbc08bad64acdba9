"""Plays one world again, or many: `python -m tests.simulation --seed 4711`.

Prints the story of the world and what was wrong in it. `--count` plays that many seeds from there on and prints only what
fails; `--steps` says how much happens in each. `--postgres URL` plays on an empty PostgreSQL database, which every world
empties again. `--jobs` plays `--count` worlds in so many processes, and long ones and worlds on PostgreSQL besides.
"""

from __future__ import annotations

import argparse
import sys
import traceback

from tests.simulation.packs import play_all
from tests.simulation.play import STEPS, WorldFailedError, universe


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--postgres", metavar="URL")
    parser.add_argument("--jobs", type=int, metavar="PROCESSES")
    wanted = parser.parse_args()
    if wanted.jobs is not None:
        if wanted.postgres or wanted.steps != STEPS:
            parser.error(
                "--jobs plays on databases of its own, with steps of its own: leave --postgres and --steps out"
            )
        return 1 if play_all(wanted.seed, wanted.count, wanted.jobs, print) else 0
    failed = 0
    with universe(wanted.postgres) as here:
        for seed in range(wanted.seed, wanted.seed + wanted.count):
            try:
                world = here.play(seed, wanted.steps)
            except WorldFailedError as error:
                failed += 1
                world = error.world
                _tell(world.events if wanted.count == 1 else [])
                if error.__cause__ is not None:
                    traceback.print_exception(error.__cause__)
                print(error, file=sys.stderr)
            else:
                _tell(world.events if wanted.count == 1 else [])
    print(f"{wanted.count} worlds, {failed} failed")
    return 1 if failed else 0


def _tell(events: list[str]) -> None:
    for event in events:
        print(event)


if __name__ == "__main__":
    sys.exit(main())

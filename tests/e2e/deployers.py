"""A process that deploys one task over and over, as several people would do at once.

    python -m tests.e2e.deployers URL NUMBER ROUNDS START_FILE

Waits until the file is there, then deploys ROUNDS times: a trigger `t` of every second whose inputs change each time, and
one of its own, which everybody else's deploy takes away again. Between deploys it switches `t` off and on. Prints what it
deployed, one JSON line each.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from scheduler.client import Client
from scheduler.domain.automation import Cron, FixedRate
from scheduler.domain.task import TaskDefinition, TaskSpec
from scheduler.domain.trigger import TriggerSpec
from scheduler.services.operate import TriggerKey
from tests.e2e.worlds import DOMAIN, PROJECT

TASK = "busy"


def definition(number: int, turn: int) -> TaskDefinition:
    """What process `number` deploys in its turn."""
    mark = {"by": number, "turn": turn}
    triggers = (
        TriggerSpec("t", FixedRate(1, "second"), inputs=mark),
        TriggerSpec(f"own-{number}", Cron("0 3 * * *"), inputs=mark),
    )
    return TaskDefinition(PROJECT, DOMAIN, TASK, f"v{number}", TaskSpec("logging", inputs=mark), triggers)


def main() -> None:
    """Deploys and says so."""
    url, number, rounds, start = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    with Client.open(url, by=f"deployer-{number}") as client:
        client.now()
        while not start.exists():
            time.sleep(0.01)
        for turn in range(rounds):
            (result,) = client.deploy([definition(number, turn)])
            print(json.dumps({"number": number, "turn": turn, "applied": result.applied}), flush=True)
            key = TriggerKey(PROJECT, DOMAIN, TASK, "t")
            if turn % 3 == number % 3 and client.deactivate(key):
                client.activate(key)


if __name__ == "__main__":
    main()

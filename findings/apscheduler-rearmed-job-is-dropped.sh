#!/usr/bin/env bash
# APScheduler 3.11.3: a date job that adds itself again, for now and under its own id, never runs a second time.
#
# While the function still runs, the new job counts as another instance of the old one: it is skipped ("maximum number
# of running instances reached"), and a date job that was skipped is over and removed. `misfire_grace_time=None` does not
# help, and `add_job` raises nothing. An alarm clock made of one date job therefore goes silent for ever if the next
# instant is already due when it is set from inside the job. Seen on 2026-11-28 with Python 3.11:
#     ran 1 times, 0 jobs left
# Exits 0 while this is so, 1 when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check apscheduler==3.11.3
"$folder/venv/bin/python" - <<'PY' | tee "$folder/seen"
import threading
import time
from datetime import UTC, datetime

from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from apscheduler.schedulers.background import BackgroundScheduler

scheduler, ran, skipped = BackgroundScheduler(timezone="UTC"), [], threading.Event()


def arm() -> None:
    options = {"id": "alarm", "replace_existing": True, "misfire_grace_time": None}
    scheduler.add_job(ring, "date", run_date=datetime.now(UTC), **options)


def ring() -> None:
    ran.append(1)
    if len(ran) == 1:
        arm()
        skipped.wait(30)  # The function is still at work when the new job becomes due.


scheduler.add_listener(lambda event: skipped.set(), EVENT_JOB_MAX_INSTANCES)
scheduler.start()
arm()
skipped.wait(30)
time.sleep(1)
print(f"ran {len(ran)} times, {len(scheduler.get_jobs())} jobs left")
scheduler.shutdown()
PY
diff "$folder/seen" - <<'SEEN'
ran 1 times, 0 jobs left
SEEN

#!/usr/bin/env bash
# croniter 7.0.0: a range of one value, `5-5`, means the whole field: every minute instead of minute 5.
#
# Debian's cron, robfig/cron and cronsim read `5-5` as 5. Whoever moves such a line to a scheduler that evaluates it
# with croniter gets sixty runs an hour where there was one. Seen on 2026-11-28 with Python 3.11:
#     croniter  5-5 * * * *  00:01 00:02 00:03
#     cronsim   5-5 * * * *  00:05 01:05 02:05
# Exits 0 while this is so, 1 when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check croniter==7.0.0 cronsim==2.8
"$folder/venv/bin/python" - <<'PY' | tee "$folder/seen"
from datetime import UTC, datetime

from croniter import croniter
from cronsim import CronSim

expression, midnight = "5-5 * * * *", datetime(2026, 1, 1, tzinfo=UTC)
mine, peers = croniter(expression, midnight), CronSim(expression, midnight)
print("croniter ", expression, "", *(mine.get_next(datetime).strftime("%H:%M") for _ in range(3)))
print("cronsim  ", expression, "", *(next(peers).strftime("%H:%M") for _ in range(3)))
PY
diff "$folder/seen" - <<'SEEN'
croniter  5-5 * * * *  00:01 00:02 00:03
cronsim   5-5 * * * *  00:05 01:05 02:05
SEEN

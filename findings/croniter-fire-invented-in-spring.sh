#!/usr/bin/env bash
# croniter 7.0.0: on the night the clocks go forward, `30 0-22 * * *` fires once more than `30 0-23 * * *`.
#
# New York skips 02:00 to 03:00 on 2024-03-10. With all 24 hours named croniter leaves the missing 02:30 out; with 23 of
# them it adds a fire at 03:00, a minute that the expression never names. The hour that was left out of the list (23) has
# nothing to do with that night. Seen on 2026-11-28 with Python 3.11:
#     30 0-23 * * *  01:30 03:30 04:30
#     30 0-22 * * *  01:30 03:00 03:30
# Exits 0 while this is so, 1 when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check croniter==7.0.0 tzdata==2025.2
PYTHONTZPATH="" "$folder/venv/bin/python" - <<'PY' | tee "$folder/seen"
from datetime import datetime
from zoneinfo import ZoneInfo

from croniter import croniter

for expression in ("30 0-23 * * *", "30 0-22 * * *"):
    fires = croniter(expression, datetime(2024, 3, 10, 1, 0, tzinfo=ZoneInfo("America/New_York")))
    print(expression, "", *(fires.get_next(datetime).strftime("%H:%M") for _ in range(3)))
PY
diff "$folder/seen" - <<'SEEN'
30 0-23 * * *  01:30 03:30 04:30
30 0-22 * * *  01:30 03:00 03:30
SEEN

#!/usr/bin/env bash
# huey 2.5.3: `crontab()` leaves out what it cannot read, and says nothing as long as the field is a list.
#
# A name of a weekday or month is not understood. Alone in its field it gives a task that never runs; beside a number it
# disappears and the rest stays. No exception, no warning. (A number out of range does raise ValueError.)
# Seen on 2026-11-28 with Python 3.11, for the days of November 2026 on which a task is due:
#     day_of_week=mon    0 days
#     day_of_week=1,fri  the Mondays
#     day_of_week=1,5    the Mondays and the Fridays
# Exits 0 while this is so, 1 when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check huey==2.5.3
"$folder/venv/bin/python" - <<'PY' | tee "$folder/seen"
from datetime import datetime

from huey import crontab

for text in ("mon", "1,fri", "1,5"):
    is_due = crontab(minute="0", hour="0", day_of_week=text)
    days = [day for day in range(1, 31) if is_due(datetime(2026, 11, day))]
    print(f"day_of_week={text}", *days)
PY
diff "$folder/seen" - <<'SEEN'
day_of_week=mon
day_of_week=1,fri 2 9 16 23 30
day_of_week=1,5 2 6 9 13 16 20 23 27 30
SEEN

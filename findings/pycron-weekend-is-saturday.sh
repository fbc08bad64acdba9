#!/usr/bin/env bash
# pycron 3.1.2 (with which taskiq decides what is due): `sat-sun` and `6-7` are Saturdays only, `7` is no day at all.
#
# Debian's cron takes `6-7` and `7` as it is usual: 7 is Sunday. pycron knows only 0 for Sunday, and a range that it
# cannot fill ends without an error. `sat,sun` works. Seen on 2026-11-28 with Python 3.11, for the first half of December 2026
# (Saturdays 5 and 12, Sundays 6 and 13):
#     sat-sun  5 12
#     6-7      5 12
#     7
#     sat,sun  5 6 12 13
# Exits 0 while this is so, 1 when it changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pycron==3.1.2
"$folder/venv/bin/python" - <<'PY' | tee "$folder/seen"
from datetime import datetime

import pycron

for days in ("sat-sun", "6-7", "7", "sat,sun"):
    print(days, *(day for day in range(1, 16) if pycron.is_now(f"0 0 * * {days}", datetime(2026, 12, day))))
PY
diff "$folder/seen" - <<'SEEN'
sat-sun 5 12
6-7 5 12
7
sat,sun 5 6 12 13
SEEN

"""The names that runs have at a remote Flyte.

A slot's run is called there as Flyte's own scheduler would call it: `r` and, in hexadecimal digits, the FNV-1 hash of 64
bits over `project:domain:task:trigger:Y:M:D:h:m:s`. Whoever fires a slot first makes its run.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Final

from executors.protocol import RunContext

_OFFSET: Final = 0xCBF29CE484222325
_PRIME: Final = 0x100000001B3
_DIGEST_LENGTH: Final = 26


def fnv1(data: bytes) -> int:
    """The hash FNV-1, not 1a, of 64 bits."""
    value = _OFFSET
    for byte in data:
        value = (value * _PRIME & 0xFFFFFFFFFFFFFFFF) ^ byte
    return value


def scheduled_name(project: str, domain: str, task: str, trigger: str, slot: datetime) -> str:
    """The name that Flyte's scheduler gives to the run of a trigger's slot, an aware instant."""
    at = slot.astimezone(UTC)
    parts = (project, domain, task, trigger, at.year, at.month, at.day, at.hour, at.minute, at.second)
    return f"r{fnv1(':'.join(map(str, parts)).encode('utf-8', 'surrogatepass')):x}"


def flyte_name(run: RunContext) -> str:
    """The run's name at Flyte, by its idempotency key: at most 30 characters that a DNS label may have.

    A run tried again, known to have ended, is another run there: `-2`. Runs fired by hand, and slots done once more,
    have names that Flyte's scheduler never gives.
    """
    if run.scheduled_at is not None and _is_of_its_slot(run, run.scheduled_at):
        again = run.key.removeprefix(run.run_name)
        name = scheduled_name(run.project, run.domain, run.task, run.trigger, run.scheduled_at)
        if run.key.startswith(run.run_name) and len(name + again) <= 30:
            return name + again
    return "m" + _digest(run.key)


def _is_of_its_slot(run: RunContext, slot: datetime) -> bool:
    at = slot.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    identity = json.dumps(
        [run.project, run.domain, run.task, run.trigger, at], separators=(",", ":"), ensure_ascii=False
    )
    return run.run_name.endswith("-" + _digest(identity))


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return base64.b32encode(digest).decode().lower()[:_DIGEST_LENGTH]

"""Names that identify: what a task, trigger or project may be called, and the deterministic name of a run."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Final

from scheduler.domain.instants import SECOND, Micros, from_datetime, to_datetime, to_rfc3339
from scheduler.errors import SpecError

MAX_NAME: Final = 255
_SLUG_LENGTH: Final = 16
_DIGEST_LENGTH: Final = 26
_NOT_SLUG: Final = re.compile(r"[^a-z0-9]+")
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS: Final = tuple(first + second for first in _BASE32 for second in _BASE32)
_FORTY_BITS: Final = (1 << 40) - 1


def check_name(value: str, field: str) -> str:
    """The name itself, if it may be one: 1–255 characters without `/`, control characters or outer spaces."""
    if not value:
        raise SpecError(field, "is empty: give it a name")
    if len(value) > MAX_NAME:
        raise SpecError(field, f"has {len(value)} characters: at most {MAX_NAME} are allowed")
    if "/" in value:
        raise SpecError(field, f"{value!r} contains '/': it separates project/domain/task/trigger")
    if value != value.strip():
        raise SpecError(field, f"{value!r} begins or ends with a space")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise SpecError(field, f"{value!r} contains a control character")
    return value


def slug(name: str) -> str:
    """At most 16 characters of `[a-z0-9-]`, beginning with a letter; `t` stands in where nothing is left."""
    text = _NOT_SLUG.sub("-", name.lower()).strip("-")
    text = text.lstrip("0123456789-")
    return text[:_SLUG_LENGTH].rstrip("-") or "t"


def run_name(project: str, domain: str, task: str, trigger: str, scheduled_at: datetime) -> str:
    """The name of the one run that a trigger's slot may have, on every worker and after every crash the same.

    `scheduled_at` is aware and a whole second. At most 59 characters, valid as a DNS label.
    """
    return slot_run_name(project, domain, task, trigger, from_datetime(scheduled_at, "scheduled_at"))


def slot_run_name(project: str, domain: str, task: str, trigger: str, slot: Micros) -> str:
    """`run_name` for a slot in epoch microseconds."""
    beginning, quoted = _quoted(project, domain, task, trigger)
    stamp, moment = _stamped(slot)
    return beginning + stamp + _digest(quoted + moment)


def reprocess_run_name(project: str, domain: str, task: str, trigger: str, slot: Micros, backfill: int) -> str:
    """The name of the run with which a backfill, by its number, does a slot again that had a run before.

    The slot's own name with a marker and the number: `nightly-b7-20261121t020000-…`. Numbers are never used twice, and so
    neither are these names, however often a slot is done again and its history forgotten.
    """
    marker = f"-b{backfill}"
    stem = slug(trigger)[: _SLUG_LENGTH - len(marker)].rstrip("-")
    (_, quoted), (stamp, moment) = _quoted(project, domain, task, trigger), _stamped(slot)
    digest = _digest(quoted + moment[:-1] + f',"backfill","{backfill}"]')
    return f"{stem}{marker}-{stamp}{digest}"


def manual_run_name(project: str, domain: str, task: str, trigger: str, key: str) -> str:
    """The name of a run fired by hand: the same caller's key gives the same name, another key another."""
    beginning, quoted = _quoted(project, domain, task, trigger)
    return beginning + "manual-" + _digest(quoted + '"manual",' + encode_basestring(key) + "]")


# A burst has few slots, and its triggers few tasks: both are put into words once.
@lru_cache(maxsize=1024)
def _stamped(slot: Micros) -> tuple[str, str]:
    if slot % SECOND:
        raise SpecError("scheduled_at", f"{to_rfc3339(slot)} is not a whole second")
    return to_datetime(slot).strftime("%Y%m%dt%H%M%S-"), f'"{to_rfc3339(slot)}"]'


def _quoted(project: str, domain: str, task: str, trigger: str) -> tuple[str, str]:
    return slug(trigger) + "-", f"{_quoted_task(project, domain, task)}{encode_basestring(trigger)},"


@lru_cache(maxsize=4096)
def _quoted_task(project: str, domain: str, task: str) -> str:
    return f"[{encode_basestring(project)},{encode_basestring(domain)},{encode_basestring(task)},"


def _digest(text: str) -> str:
    # One JSON text for one identity: no separator that a name could contain can make two identities equal.
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    # The first 130 bits, five a character, taken in tens, and out of three numbers that are short enough to be shifted
    # quickly: the library's encoder takes twice as long.
    bits = int.from_bytes(digest[:17]) >> 6
    a, b, c, pairs = bits >> 80, bits >> 40 & _FORTY_BITS, bits & _FORTY_BITS, _PAIRS
    return (
        f"{pairs[a >> 40]}{pairs[a >> 30 & 1023]}{pairs[a >> 20 & 1023]}{pairs[a >> 10 & 1023]}{pairs[a & 1023]}"
        f"{pairs[b >> 30]}{pairs[b >> 20 & 1023]}{pairs[b >> 10 & 1023]}{pairs[b & 1023]}"
        f"{pairs[c >> 30]}{pairs[c >> 20 & 1023]}{pairs[c >> 10 & 1023]}{pairs[c & 1023]}"
    )

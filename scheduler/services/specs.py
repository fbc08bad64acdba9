"""Task specifications by digest: kept byte for byte, once, for as long as anything names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scheduler.domain.instants import SECOND, Micros
from scheduler.domain.task import SPEC_FORMAT, digest_of
from scheduler.errors import NotFound, SpecError
from scheduler.store.transaction import Transaction

ORPHANED_AFTER: Final[Micros] = 86_400 * SECOND
_HOUR: Final[Micros] = 3_600 * SECOND
_LONGEST_FORMAT: Final = 32


@dataclass(frozen=True, slots=True)
class StoredSpec:
    """The bytes as they were handed in, and the format they are said to be in."""

    digest: str
    format: str
    encoded: bytes
    created_at: Micros


@dataclass(frozen=True, slots=True)
class Orphans:
    """Digests without a version that nobody asked for in a day: those that a run or trigger still names, and the rest."""

    pinned: tuple[str, ...]
    free: tuple[str, ...]


def create_task_spec(
    tx: Transaction, encoded: bytes, *, spec_format: str = SPEC_FORMAT, digest: str | None = None
) -> str:
    """Keeps a specification without deploying a task; returns its digest, the SHA-256 of the bytes in hexadecimal.

    One that is there already is left alone. It stays for a day after the last call, and for as long as a version, a
    trigger or a run names it. Raises `SpecError` where `digest` is given and is another.
    """
    if not spec_format.isprintable() or not 0 < len(spec_format) <= _LONGEST_FORMAT:
        raise SpecError("format", f"{spec_format!r} is not 1 to {_LONGEST_FORMAT} printable characters")
    found = digest_of(encoded)
    if digest is not None and digest != found:
        raise SpecError("digest", f"{digest!r} is not the SHA-256 of these bytes: that is {found}")
    tx.tasks.save_encoded_spec(found, spec_format, encoded)
    now = tx.now()
    # Not at every call: whoever hands in one specification a thousand times an hour writes it down once.
    tx.specs.need([found], now, now - _HOUR)
    return found


def read_task_spec(tx: Transaction, digest: str) -> StoredSpec:
    """The specification of this digest; raises `NotFound`."""
    row = tx.specs.find(digest)
    if row is None:
        raise NotFound("task spec", digest)
    return StoredSpec(row["digest"], row["format"], bytes(row["spec"]), row["created_at"])


def find_orphan_specs(tx: Transaction, limit: int) -> Orphans:
    """At most `limit` specifications that `collect_orphan_specs` is to look after; writes nothing.

    A transaction of its own, since it may read every run: on SQLite nobody could write meanwhile otherwise.
    """
    unnamed = tx.specs.unnamed(tx.now() - ORPHANED_AFTER, limit)
    pinned = tx.specs.pinned(unnamed)
    return Orphans(tuple(sorted(pinned)), tuple(digest for digest in unnamed if digest not in pinned))


def collect_orphan_specs(tx: Transaction, found: Orphans) -> int:
    """Removes what was found free, unless it is needed again since; returns how many. What is pinned rests for a day."""
    now = tx.now()
    if found.pinned:
        tx.specs.need(found.pinned, now, now - ORPHANED_AFTER)
    return tx.specs.remove_unnamed(found.free, now - ORPHANED_AFTER) if found.free else 0

"""Workers and their leases: one row each, so that a heartbeat writes one row however many runs it holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Executable, RowMapping, bindparam, delete, func, select, update

from scheduler.domain.instants import Micros
from scheduler.store.dialect import BIGINT, Dialect, asked_now
from scheduler.store.prepared import prepared
from scheduler.store.schema import runs, waits, workers

if TYPE_CHECKING:
    from scheduler.store.transaction import Transaction


class WorkerTable:
    """Worker rows through one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def register(
        self, incarnation: str, name: str, version: str, fingerprint: str, executors: Sequence[str], lease: Micros
    ) -> None:
        """Adds a living worker under an incarnation that was never used before."""
        now = self._tx.now()
        self._tx.connection.execute(
            workers.insert().values(
                incarnation=incarnation,
                name=name,
                version=version,
                fingerprint=fingerprint,
                executors=json.dumps(list(executors)),
                epoch=self._tx.meta.epoch(),
                started_at=now,
                renewed_at=now,
                lease_until=now + lease,
                alive=True,
            )
        )

    def renew(self, incarnation: str, lease: Micros) -> Micros | None:
        """Extends the lease; returns the store's present instant, or None if the worker was declared dead."""
        now = self._tx.now()
        result = self._tx.connection.execute(
            _renew(self._tx.dialect), {"of": incarnation, "now": now, "until": now + lease}
        )
        return now if result.rowcount else None

    def is_dead_now(self, incarnation: str) -> tuple[bool, Micros]:
        """Whether the worker was declared dead, or left, and the present instant: one question instead of two.

        One that was never registered is neither.
        """
        given = self._tx.given_now()
        statement = _alive_now(self._tx.dialect, not given)
        alive, now = self._tx.connection.execute(statement, {"of": incarnation, **given}).one()
        return alive is False, self._tx.believed(now)

    def retire(self, incarnation: str) -> None:
        """The worker left by itself."""
        now = self._tx.now()
        self._tx.connection.execute(
            update(workers).where(workers.c.incarnation == incarnation).values(alive=False, lease_until=now)
        )

    def void_all(self) -> int:
        """Declares every worker dead, whatever its lease says."""
        return int(self._tx.connection.execute(update(workers).where(workers.c.alive).values(alive=False)).rowcount)

    def last_seen(self) -> Micros | None:
        """When any worker last renewed its lease; an instant ahead of now means that the clock was set back since."""
        value: Micros | None = self._tx.connection.execute(_last_seen(self._tx.dialect)).scalar()
        return value

    def bury_expired(self, me: str, lease: Micros) -> list[str]:
        """Declares every other worker whose lease is over dead; returns their names.

        Over means over when this worker itself last renewed: the clock may have been set since, and then nobody's lease can
        be told from one that is over. A renewal that lies ahead of that by more than a lease was made by a clock that was
        set back since: its worker has one lease from now. While its own last renewal is further from now than a lease, in
        either direction, a worker judges nobody.
        """
        now = self._tx.now()
        renewed: Micros | None = self._tx.connection.execute(_renewed(self._tx.dialect), {"me": me}).scalar()
        since = now if renewed is None else renewed
        if abs(since - now) > lease:
            return []
        buried = list(
            self._tx.connection.execute(_bury_expired(self._tx.dialect), {"me": me, "since": since}).scalars()
        )
        given = {"me": me, "far": since + lease, "now": now, "until": now + lease}
        self._tx.connection.execute(_bring_back(self._tx.dialect), given)
        return buried

    def forget_dead(self, before: Micros) -> int:
        """Removes rows of workers dead since before an instant that no run names any more."""
        return int(self._tx.connection.execute(_forget_dead(self._tx.dialect), {"before": before}).rowcount)

    def list_living(self) -> Sequence[RowMapping]:
        """The living workers with how many runs and how many waits each holds, oldest first."""
        held = (
            select(runs.c.owner, func.count().label("running"))
            .where(runs.c.owner.is_not(None))
            .group_by(runs.c.owner)
            .subquery()
        )
        watched = (
            select(waits.c.owner, func.count().label("waits"))
            .where(waits.c.owner.is_not(None))
            .group_by(waits.c.owner)
            .subquery()
        )
        counts = [func.coalesce(held.c.running, 0).label("running"), func.coalesce(watched.c.waits, 0).label("waits")]
        statement = (
            select(workers, *counts)
            .join(held, held.c.owner == workers.c.incarnation, isouter=True)
            .join(watched, watched.c.owner == workers.c.incarnation, isouter=True)
            .where(workers.c.alive)
            .order_by(workers.c.started_at)
        )
        return self._tx.connection.execute(statement).mappings().all()

    def declared_executors(self) -> set[str]:
        """The executors that some living worker declares."""
        statement = select(workers.c.executors).where(workers.c.alive)
        return {name for text in self._tx.connection.execute(statement).scalars() for name in json.loads(text)}


@prepared
def _renew(_dialect: Dialect) -> Executable:
    return (
        update(workers)
        .where(workers.c.incarnation == bindparam("of"), workers.c.alive)
        .values(renewed_at=bindparam("now", type_=BIGINT), lease_until=bindparam("until", type_=BIGINT))
    )


@prepared
def _renewed(_dialect: Dialect) -> Executable:
    return select(workers.c.renewed_at).where(workers.c.incarnation == bindparam("me"))


@prepared
def _last_seen(_dialect: Dialect) -> Executable:
    return select(func.max(workers.c.renewed_at))


@prepared
def _alive_now(_dialect: Dialect, asks_server: bool) -> Executable:
    alive = select(workers.c.alive).where(workers.c.incarnation == bindparam("of")).scalar_subquery()
    return select(alive, asked_now(asks_server))


@prepared
def _bury_expired(_dialect: Dialect) -> Executable:
    return (
        update(workers)
        .where(
            workers.c.alive,
            workers.c.lease_until < bindparam("since", type_=BIGINT),
            workers.c.incarnation != bindparam("me"),
        )
        .values(alive=False)
        .returning(workers.c.name)
    )


@prepared
def _bring_back(_dialect: Dialect) -> Executable:
    return (
        update(workers)
        .where(
            workers.c.alive,
            workers.c.renewed_at > bindparam("far", type_=BIGINT),
            workers.c.incarnation != bindparam("me"),
        )
        .values(renewed_at=bindparam("now", type_=BIGINT), lease_until=bindparam("until", type_=BIGINT))
    )


@prepared
def _forget_dead(_dialect: Dialect) -> Executable:
    return delete(workers).where(
        workers.c.alive.is_(False),
        workers.c.lease_until < bindparam("before", type_=BIGINT),
        ~select(runs.c.owner).where(runs.c.owner == workers.c.incarnation).exists(),
    )

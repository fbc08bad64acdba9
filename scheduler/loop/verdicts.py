"""What a look at a wait may find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from scheduler.domain.instants import Micros
from scheduler.services.finish import Ended
from scheduler.services.resume import Tries


class Interrupted(Exception):
    """The look was broken off: somebody wants the wait to end, or its time is over. Nothing went wrong."""


@dataclass(frozen=True, slots=True)
class Again:
    """To be looked at again after so many microseconds; `changed`: what is stored is to be written."""

    pause: Micros
    changed: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """The job that an interrupted submission made: to be stored, then watched."""


@dataclass(frozen=True, slots=True)
class Decided:
    """How the run ends is decided: to be stored, then its job is to be ended."""


@dataclass(frozen=True, slots=True)
class Given:
    """It waits for an instant now: to be stored, and the database's from then on."""


@dataclass(frozen=True, slots=True)
class NotMade:
    """There is no job: it is to be submitted again, after so many microseconds."""

    tries: Tries
    pause: Micros


@dataclass(frozen=True, slots=True)
class Over:
    """The attempt has ended."""

    ended: Ended


Verdict: TypeAlias = Again | Found | Decided | Given | NotMade | Over

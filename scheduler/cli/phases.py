"""Phases as people type them."""

from __future__ import annotations

from scheduler.cli.guard import Refused
from scheduler.domain.run import Phase


def phase_named(text: str) -> Phase:
    """The phase of this name, in whatever case it was typed."""
    try:
        return Phase(text.upper())
    except ValueError:
        raise Refused(f"--phase {text!r} is none of {', '.join(Phase)}") from None

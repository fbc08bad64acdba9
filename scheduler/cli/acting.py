"""How verbs act on several things: everything is read before anything is done, and what fails keeps nobody from the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import typer

from scheduler.cli.guard import CONFLICT, FAILED, NOT_FOUND, Refused, lines
from scheduler.cli.output import counted, emit, note
from scheduler.errors import Conflict, NotFound, SpecError

if TYPE_CHECKING:
    from scheduler.cli.keys import TriggerKey
    from scheduler.client import Client
    from scheduler.settings import Defaults

T = TypeVar("T")
BATCH: Final = 500
EVERY: Final = 1_000_000


def each(things: Iterable[T], act: Callable[[T], str], tell: Callable[[str], None] = emit) -> None:
    """Does something to each of these and tells what it answers; exits 4 or 5 at the end where some did not go."""
    codes = {code for thing in things if (code := _one(thing, act, tell)) is not None}
    if codes:
        raise typer.Exit(min(codes))


def together(things: Sequence[T], many: Callable[[list[T]], Collection[T]], done: str, already: str) -> None:
    """The same in batches, each one transaction: `many` answers which of them it changed.

    Where one of a batch does not exist or was changed by somebody else, its batch is done one by one.
    """
    codes: set[int] = set()

    def alone(thing: T) -> str:
        return f"{done if many([thing]) else already} {thing}"

    for start in range(0, len(things), BATCH):
        batch = list(things[start : start + BATCH])
        try:
            changed = set(many(batch))
        except (NotFound, Conflict):
            codes.update(code for thing in batch if (code := _one(thing, alone)) is not None)
        else:
            emit("\n".join(f"{done if thing in changed else already} {thing}" for thing in batch))
    if codes:
        raise typer.Exit(min(codes))


def _one(thing: T, act: Callable[[T], str], tell: Callable[[str], None] = emit) -> int | None:
    try:
        tell(act(thing))
    except (NotFound, Conflict) as error:
        for line in lines(error):
            note(line)
        return NOT_FOUND if isinstance(error, NotFound) else CONFLICT
    return None


def chosen_triggers(
    client: Client,
    defaults: Defaults,
    named: Sequence[str] | None,
    *,
    project: str | None,
    domain: str | None,
    task: str | None,
    every: bool,
    yes: bool,
    dry_run: bool,
    verb: str,
) -> list[TriggerKey]:
    """The triggers that are named, or else those that the filters choose, which takes a confirmation.

    With `dry_run` it says which, and ends the command; one that does not exist raises `NotFound`.
    """
    from scheduler.cli.keys import TriggerKey, filters, trigger_keys

    filtered = every or any(value is not None for value in (project, domain, task))
    if named and filtered:
        raise Refused("name triggers, or choose them with --task, --project, --domain or --all: not both")
    if named:
        keys = trigger_keys(named, defaults)
        if dry_run:
            for key in keys:
                client.show_trigger(key)
            rehearse(keys, verb)
        return keys
    if not filtered:
        raise Refused("name triggers, or choose them with --task, --project, --domain or --all")
    wanted = filters(defaults, project=project, domain=domain, task=task)
    rows = client.list_triggers(project=wanted["project"], domain=wanted["domain"], task=wanted["task"], limit=EVERY)
    keys = [TriggerKey(row["project"], row["domain"], row["task"], row["name"]) for row in rows]
    confirm(keys, "trigger", verb, yes=yes, dry_run=dry_run)
    return keys


def confirm(things: Sequence[object], noun: str, verb: str, *, yes: bool, dry_run: bool) -> None:
    """Asks before `verb` is done to these; raises `Refused` where there is nobody to ask.

    With `dry_run` it says to which it would be done, and ends the command.
    """
    count = len(things)
    if dry_run:
        rehearse(things, verb)
    if not count:
        note(f"no {noun} matches")
    elif not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Refused(f"this would {verb} {counted(count, noun)}: repeat it with --yes")
    elif not yes:
        # On stderr, question and all: stdout is for results.
        sys.stderr.write(f"{verb} {counted(count, noun)}? [y/N]: ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            note("nothing was done")
            raise typer.Exit(FAILED)


def rehearse(things: Sequence[object], verb: str) -> None:
    """Says what would be done to each of these, and ends the command."""
    if things:
        emit("\n".join(f"would {verb} {thing}" for thing in things))
    note("dry run, nothing was done")
    raise typer.Exit


def expected(keys: Sequence[TriggerKey], revision: int | None) -> dict[TriggerKey, int] | None:
    """The revision that the one trigger must still have."""
    if revision is None:
        return None
    if len(keys) != 1:
        raise SpecError("--expect-revision", f"is of one trigger, and there are {len(keys)}")
    return {keys[0]: revision}

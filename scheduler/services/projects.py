"""Which projects and domains a deploy may name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from scheduler.domain.task import TaskDefinition
from scheduler.errors import SpecError
from scheduler.store.transaction import Transaction


def admit(
    tx: Transaction,
    definition: TaskDefinition,
    *,
    declared: Mapping[str, Collection[str]],
    create: bool = False,
    dry_run: bool = False,
) -> None:
    """Lets the deploy of a definition go on; raises `SpecError`, naming the known projects or domains, if it must not.

    Known is what is recorded. What is `declared`, or anything at all with `create`, is recorded on its first use, but not
    by a dry run.
    """
    project, domain = definition.project, definition.domain
    if tx.tasks.knows(project, domain):
        return
    if create or domain in declared.get(project, ()):
        if not dry_run:
            tx.tasks.ensure_projects({project: [domain]})
        return
    known = {name: set(domains) for name, domains in tx.tasks.known_projects().items()}
    for name, domains in declared.items():
        known.setdefault(name, set()).update(domains)
    if project not in known:
        reason = f"{project!r} is not a known project: {_listed(known)}"
        raise SpecError("project", f"{reason}; task {definition.key} is not deployed")
    reason = f"{domain!r} is not a known domain of {project}: {_listed(known[project])}"
    raise SpecError("domain", f"{reason}; task {definition.key} is not deployed")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"

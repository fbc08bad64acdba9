"""Which projects and domains a deploy may name."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from scheduler.errors import SpecError
from scheduler.store.transaction import Transaction


def admit(
    tx: Transaction,
    project: str,
    domain: str,
    *,
    declared: Mapping[str, Collection[str]],
    create: bool = False,
    dry_run: bool = False,
) -> None:
    """Lets a deploy into this domain of this project go on; raises `SpecError`, naming what is known, if it must not.

    Known is what is recorded. What is `declared`, or anything at all with `create`, is recorded on its first use, but not
    by a dry run.
    """
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
        names = ", ".join(sorted(known)) or "none"
        raise SpecError("project", f"{project!r} is not a known project: {names}")
    raise SpecError("domain", f"{domain!r} is not a known domain of {project}: {', '.join(sorted(known[project]))}")

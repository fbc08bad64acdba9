"""`scheduler export`: what is deployed, written back as manifests."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scheduler.cli.guard import FAILED, Refused
from scheduler.cli.invocation import Invocation
from scheduler.cli.options import DomainOption, ProjectOption, TaskOption
from scheduler.cli.output import Output, counted, emit, note, prints_unicode
from scheduler.cli.verbs import new_app
from scheduler.errors import NotFound

if TYPE_CHECKING:
    from scheduler.domain.task import TaskDefinition

app = new_app()


@app.command()
def export(
    ctx: typer.Context,
    project: ProjectOption = None,
    domain: DomainOption = None,
    task: TaskOption = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="A file (.yaml), for one project and domain; or a folder, for a file a task. Else standard output.",
        ),
    ] = None,
) -> None:
    """Write what is deployed back as manifests that change nothing when they are deployed.

    What operators did since then (activate, deactivate) is told on standard error and not exported.
    """
    from scheduler.cli.keys import filters
    from scheduler.cli.manifest_files import Forms, text_of, unsayable

    scheduler = Invocation.of(ctx).app
    wanted = filters(scheduler.settings.defaults, project=project, domain=domain, task=task)
    target = None if output in (None, "-") else _target(str(output))
    with scheduler.client() as client:
        found = client.export(project=wanted["project"], domain=wanted["domain"], task=wanted["task"])
    definitions = [item.definition for item in found if item.definition is not None]
    faults = [item.fault for item in found if item.fault is not None]
    for key, reasons in unsayable(definitions).items():
        definitions = [definition for definition in definitions if definition.key != key]
        faults.extend(f"{key}: {reason}" for reason in reasons)
    for remark in (remark for item in found for remark in item.remarks):
        note(f"note: {remark}")
    for fault in faults:
        note(f"left out: {fault}")
    if not definitions:
        if not faults and wanted["task"] is not None:
            raise NotFound("task", "/".join(filter(None, wanted.values())))
        note("nothing to export")
    elif target is None:
        _one_place(definitions)
        emit(text_of(Forms(definitions).one_file(), unicode=prints_unicode()).rstrip("\n"))
    else:
        _write(Forms(definitions), definitions, target)
    if faults:
        raise typer.Exit(FAILED)


def _target(text: str) -> Path:
    if text in [kind.value for kind in Output]:
        raise Refused(f"-o {text} names a file or folder here: the manifests are YAML always; write -o ./{text}")
    return Path(text)


def _one_place(definitions: Sequence[TaskDefinition]) -> None:
    places = sorted({f"--project {item.project} --domain {item.domain}" for item in definitions})
    if len(places) > 1:
        raise Refused(
            f"one manifest holds one project and domain: name a folder with -o, or one of {', '.join(places)}"
        )


def _write(forms: Any, definitions: Sequence[TaskDefinition], target: Path) -> None:
    from scheduler.cli.manifest_files import CALENDARS

    documents: dict[Path, Mapping[str, Any]]
    if target.suffix in (".yaml", ".yml") and not target.is_dir():
        _one_place(definitions)
        documents = {target: forms.one_file()}
    else:
        documents = {target / name: document for name, (_, document) in forms.files().items()}
        if forms.calendars():
            documents[target / CALENDARS] = forms.calendars()
    try:
        for path, document in documents.items():
            _replace(path, document)
        others = [] if target.is_file() else _others(target, documents)
    except OSError as error:
        raise Refused(f"{error.filename or target} cannot be written: {error.strerror or error}") from None
    for other in others:
        note(f"note: {other} was there before and is not part of this export")
    triggers = sum(len(definition.triggers) for definition in definitions)
    emit(f"exported {counted(len(definitions), 'task')} with {counted(triggers, 'trigger')} to {target}")


def _replace(path: Path, document: Mapping[str, Any]) -> None:
    """Writes the file whole or not at all: a former export is there until the new one is."""
    from scheduler.cli.manifest_files import text_of

    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".export-", delete=False) as file:
        try:
            file.write(text_of(document))
            file.close()
            umask = os.umask(0)
            os.umask(umask)
            Path(file.name).chmod(0o666 & ~umask)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def _others(folder: Path, written: Mapping[Path, object]) -> list[Path]:
    manifests = (path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.name[0] != ".")
    return sorted(path for path in manifests if path not in written)

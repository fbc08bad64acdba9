"""Definitions as the text of manifests, in the strict YAML that manifests are read in."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import yaml

from scheduler.domain.manifest_form import task_form, trigger_form
from scheduler.errors import ConfigError
from scheduler.reading.strict_yaml import plain_value

if TYPE_CHECKING:
    from scheduler.domain.task import TaskDefinition

CALENDARS: Final = "calendars.yaml"
_NOT_IN_FILE_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]|^\.")
_LONGEST_FILE_NAME: Final = 120
_WIDTH: Final = 120
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Forms:
    """The documents of these definitions' manifests.

    Calendars are defined once and named by the triggers, except where two of one name differ: those are written in full
    wherever they are used.
    """

    def __init__(self, definitions: Iterable[TaskDefinition]) -> None:
        self._definitions = list(definitions)
        calendars: dict[str, list[dict[str, Any]]] = {}
        for definition in self._definitions:
            for trigger in definition.triggers:
                for calendar in trigger_form(trigger).get("calendars", ()):
                    known = calendars.setdefault(calendar["name"], [])
                    if calendar not in known:
                        known.append(calendar)
        self._shared = {name: known[0] for name, known in sorted(calendars.items()) if len(known) == 1}

    def calendars(self) -> dict[str, Any]:
        """The calendars that triggers name, as a file's `calendars`; empty where there are none."""
        found = {name: _without_name(calendar) for name, calendar in self._shared.items()}
        return {"calendars": found} if found else {}

    def one_file(self) -> dict[str, Any]:
        """All of them in one document; they must be of one project and domain."""
        return self._of(self._definitions) | self.calendars()

    def files(self) -> dict[str, tuple[TaskDefinition, dict[str, Any]]]:
        """A document for each task, by a file name that tells which; their calendars stand in a file of their own."""
        return {file_name(definition): (definition, self._of([definition])) for definition in self._definitions}

    def _of(self, definitions: Sequence[TaskDefinition]) -> dict[str, Any]:
        first = definitions[0]
        tasks = []
        for definition in definitions:
            triggers = [self._trigger(trigger_form(trigger)) for trigger in definition.triggers]
            tasks.append(task_form(definition) | ({"triggers": triggers} if triggers else {}))
        return {"project": first.project, "domain": first.domain, "tasks": tasks}

    def _trigger(self, form: dict[str, Any]) -> dict[str, Any]:
        if "calendars" in form:
            form["calendars"] = [
                calendar["name"] if calendar["name"] in self._shared else calendar for calendar in form["calendars"]
            ]
        return form


def _without_name(calendar: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in calendar.items() if key != "name"}


def file_name(definition: TaskDefinition) -> str:
    """`project.domain.task.yaml`; what file systems mind is replaced, and a few letters keep two names apart then."""
    key = f"{definition.project}.{definition.domain}.{definition.name}"
    plain = _NOT_IN_FILE_NAMES.sub("_", key)[:_LONGEST_FILE_NAME]
    # On some file systems `A.yaml` and `a.yaml` are one file. Dots before the task's own name could stand elsewhere.
    if plain == key == key.lower() and key.count(".") == definition.name.count(".") + 2:
        return f"{plain}.yaml"
    return f"{plain}-{hashlib.sha256(definition.key.encode()).hexdigest()[:8]}.yaml"


def text_of(document: Mapping[str, Any], *, unicode: bool = True) -> str:
    """The document as YAML; without `unicode`, what is not ASCII is escaped."""
    text: str = yaml.dump(
        document, Dumper=_Writer, sort_keys=False, allow_unicode=unicode, width=_WIDTH, default_flow_style=None
    )
    return text


def unsayable(definitions: Iterable[TaskDefinition]) -> dict[str, list[str]]:
    """By task key, why the manifest of a definition would not be read as that definition: found by reading it.

    What other sources deploy may go beyond what manifests allow, a timeout of two hundred years for instance.
    """
    from scheduler.manifests import load_manifests

    forms = Forms(definitions)
    files = forms.files()
    faults: dict[str, list[str]] = {}
    with TemporaryDirectory(prefix="scheduler-export-") as folder:
        for name, (_, document) in files.items():
            Path(folder, name).write_text(text_of(document), encoding="utf-8")
        Path(folder, CALENDARS).write_text(text_of(forms.calendars() or {"calendars": {}}), encoding="utf-8")
        read: dict[str, TaskDefinition] = {}
        try:
            read = {definition.key: definition for definition in load_manifests([folder]).definitions}
        except ConfigError as error:
            for problem in error.problems:
                key = files[Path(problem.file or error.path).name][0].key
                faults.setdefault(key, []).append(f"{problem.where}: {problem.reason}")
        if not faults:
            for definition, _ in files.values():
                if read[definition.key].deploy_digest != definition.deploy_digest:
                    faults[definition.key] = ["a manifest cannot say all of it"]
    return faults


class _Writer(_Dumper):  # type: ignore[misc]
    """Safe YAML in which every text is read back as the text it is, also by the strict reader."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(writer: Any, text: str) -> Any:
    if "\n" in text and _fits_block(text):
        return writer.represent_scalar("tag:yaml.org,2002:str", text, style="|")
    try:
        ambiguous = plain_value(text) is not text
    except ValueError:
        ambiguous = True
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style='"' if ambiguous else None)


def _fits_block(text: str) -> bool:
    # A block keeps lines as they are: nothing in it may need an escape, and no line may end in what nobody sees.
    lines = text.split("\n")
    return all(line.isprintable() and line == line.rstrip() for line in lines) and lines[0] == lines[0].lstrip()


_Writer.add_representer(str, _represent_text)

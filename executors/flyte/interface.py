"""What a task takes and gives at Flyte: as its `config` says, and for the rest as its values are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from executors.errors import PermanentError, Problem
from executors.flyte.kinds import Kind, OneOf, Simple, fit, infer, parse_kind
from executors.protocol import RunContext

Fitted: TypeAlias = dict[str, tuple[Any, Kind]]
"""Each input as Python has it, and its kind."""


@dataclass(frozen=True)
class InputTypes:
    """Types by name, as Python writes them: `int`, `list[str]`, `datetime`, `float | None`…"""

    inputs: dict[str, str] = field(default_factory=dict)

    def check(self) -> Iterable[Problem]:
        """What types cannot say."""
        yield from _faults("inputs", self.inputs)


@dataclass(frozen=True)
class Interface(InputTypes):
    """What a task takes and what it gives."""

    outputs: dict[str, str] = field(default_factory=dict)

    def check(self) -> Iterable[Problem]:
        """What types cannot say."""
        yield from super().check()
        yield from _faults("outputs", self.outputs)


def _faults(side: str, types: Mapping[str, str]) -> Iterable[Problem]:
    for name, text in types.items():
        try:
            parse_kind(text)
        except ValueError as fault:
            yield f"{side}.{name}", str(fault)


# Looked up for every run of every task, and the same for all runs of one.
@lru_cache(maxsize=10_000)
def kind_of(text: str) -> Kind:
    """`parse_kind`, remembered."""
    return parse_kind(text)


def fitted_inputs(run: RunContext, interface: InputTypes) -> Fitted:
    """The run's inputs with their kinds; raises `PermanentError` with everything that does not fit.

    The input that holds the slot is an instant; others that the interface does not name are what their values are. One
    that it names must be there, unless it may be None.
    """
    found: Fitted = {}
    faults = []
    for name in [*interface.inputs, *(name for name in run.inputs if name not in interface.inputs)]:
        path = f"inputs.{name}"
        try:
            kind = _kind(run, interface.inputs, name, path)
            if name not in run.inputs and not _takes_none(kind):
                raise ValueError(f"{path} is missing")
            found[name] = fit(run.inputs.get(name), kind, path)
        except ValueError as fault:
            faults.append(str(fault))
        except RecursionError:
            faults.append(f"{path} is nested too deeply")
    if faults:
        raise PermanentError("the inputs cannot be sent: " + "; ".join(faults))
    return found


def _kind(run: RunContext, declared: Mapping[str, str], name: str, path: str) -> Kind:
    if name in declared:
        return kind_of(declared[name])
    if name == run.kickoff_input:
        return Simple.DATETIME
    return infer(run.inputs[name], path)


def _takes_none(kind: Kind) -> bool:
    return kind in (Simple.NONE, Simple.ANY) or (isinstance(kind, OneOf) and any(map(_takes_none, kind.members)))

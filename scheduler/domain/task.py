"""What runs: a task's specification and the definition that a deploy brings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, get_args

from scheduler.domain.identity import MAX_NAME, check_name
from scheduler.domain.instants import format_duration, parse_duration
from scheduler.domain.retry import RetryPolicy
from scheduler.domain.trigger import TriggerSpec
from scheduler.domain.values import check_count, check_duration, check_json, check_text
from scheduler.errors import SpecError

OnLost = Literal["retry", "fail"]
OnUnknown = Literal["fail", "resubmit"]

SPEC_FORMAT: Final = "json"
MAX_SHORT_DESCRIPTION: Final = 255
MAX_LONG_DESCRIPTION: Final = 2048


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """The logic of a task: what its digest covers and what a run pins when it fires."""

    executor: str
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    timeout: timedelta | None = None
    deadline: timedelta | None = None
    retries: RetryPolicy = RetryPolicy()
    max_concurrent_runs: int | None = None
    on_lost: OnLost = "retry"
    on_unknown: OnUnknown = "fail"
    cancel_give_up: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        check_name(self.executor, "executor")
        for name, value in (("timeout", self.timeout), ("deadline", self.deadline)):
            check_duration(value, name, positive=True)
        check_duration(self.cancel_give_up, "cancel_give_up")
        check_count(self.max_concurrent_runs, "max_concurrent_runs")
        if self.on_lost not in get_args(OnLost):
            raise SpecError("on_lost", f"{self.on_lost!r} is neither retry nor fail")
        if self.on_unknown not in get_args(OnUnknown):
            raise SpecError("on_unknown", f"{self.on_unknown!r} is neither fail nor resubmit")
        for name, mapping in (("config", self.config), ("inputs", self.inputs)):
            check_json(mapping, name)

    def encode(self) -> bytes:
        """The canonical bytes: sorted keys, defaults left out, so equal specifications have equal digests."""
        document: dict[str, Any] = {"executor": self.executor}
        if self.config:
            document["config"] = self.config
        if self.inputs:
            document["inputs"] = self.inputs
        for name, value in (("timeout", self.timeout), ("deadline", self.deadline)):
            if value is not None:
                document[name] = format_duration(value)
        if self.retries != RetryPolicy():
            document["retries"] = {
                "max_attempts": self.retries.max_attempts,
                "initial": format_duration(self.retries.initial),
                "multiplier": self.retries.multiplier,
                "maximum": format_duration(self.retries.maximum),
            }
        if self.max_concurrent_runs is not None:
            document["max_concurrent_runs"] = self.max_concurrent_runs
        if self.on_lost != "retry":
            document["on_lost"] = self.on_lost
        if self.on_unknown != "fail":
            document["on_unknown"] = self.on_unknown
        if self.cancel_give_up != timedelta(hours=24):
            document["cancel_give_up"] = format_duration(self.cancel_give_up)
        return canonical_json(document)

    @classmethod
    def decode(cls, encoded: bytes) -> TaskSpec:
        """The specification that `encode` wrote."""
        document = json.loads(encoded)
        retries = document.get("retries")
        return cls(
            executor=document["executor"],
            config=document.get("config", {}),
            inputs=document.get("inputs", {}),
            timeout=_duration(document, "timeout"),
            deadline=_duration(document, "deadline"),
            retries=RetryPolicy(
                max_attempts=retries["max_attempts"],
                initial=parse_duration(retries["initial"]),
                multiplier=retries["multiplier"],
                maximum=parse_duration(retries["maximum"]),
            )
            if retries
            else RetryPolicy(),
            max_concurrent_runs=document.get("max_concurrent_runs"),
            on_lost=document.get("on_lost", "retry"),
            on_unknown=document.get("on_unknown", "fail"),
            cancel_give_up=_duration(document, "cancel_give_up") or timedelta(hours=24),
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, in hexadecimal."""
        return digest_of(self.encode())


@dataclass(frozen=True, slots=True)
class Environment:
    """The named environment a task belongs to; its name is a prefix of the task's name where people keep that habit."""

    name: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        check_text(self.name, "environment.name", MAX_NAME)
        check_text(self.description, "environment.description")


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """One task of a deploy: identity, version, specification and the whole set of its triggers."""

    project: str
    domain: str
    name: str
    version: str
    spec: TaskSpec
    triggers: tuple[TriggerSpec, ...] = ()
    environment: Environment = Environment()
    description: str = ""
    long_description: str = ""

    def __post_init__(self) -> None:
        for label, value in (("project", self.project), ("domain", self.domain), ("name", self.name)):
            check_name(value, label)
        check_name(self.version, "version")
        check_text(self.description, "description")
        check_text(self.long_description, "long_description")
        seen: set[str] = set()
        for index, trigger in enumerate(self.triggers):
            if trigger.name in seen:
                raise SpecError(f"triggers[{index}].name", f"{trigger.name!r} is used twice in this task")
            seen.add(trigger.name)

    @property
    def key(self) -> str:
        """`project/domain/name`."""
        return f"{self.project}/{self.domain}/{self.name}"

    @property
    def function_name(self) -> str:
        """The name without its environment's prefix, else its last dotted segment."""
        prefix = self.environment.name + "."
        if self.environment.name and self.name.startswith(prefix) and len(self.name) > len(prefix):
            return self.name[len(prefix) :]
        return self.name.rsplit(".", 1)[-1] or self.name

    @property
    def short_description(self) -> str:
        """The description, cut at 255 characters."""
        return self.description[:MAX_SHORT_DESCRIPTION]

    @property
    def full_description(self) -> str:
        """The long description, cut at 2,048 characters."""
        return self.long_description[:MAX_LONG_DESCRIPTION]

    @property
    def deploy_digest(self) -> str:
        """SHA-256 over everything this deploy says: two deploys with the same one are the same deploy."""
        document = {
            "version": self.version,
            "spec": self.spec.digest,
            "environment": [self.environment.name, self.environment.description],
            # As far as they are kept: what was cut off is nowhere any more, and could be told by nobody.
            "description": self.short_description,
            "long_description": self.full_description,
            "triggers": sorted((trigger.to_document() for trigger in self.triggers), key=lambda t: str(t["name"])),
        }
        return digest_of(canonical_json(document))


def merge_inputs(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Task defaults, then the trigger's inputs, then a manual run's: later layers win, key by key."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update(layer)
    return merged


def canonical_json(document: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8: one text for one value."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _duration(document: Mapping[str, Any], name: str) -> timedelta | None:
    text = document.get(name)
    return parse_duration(text, name) if text is not None else None

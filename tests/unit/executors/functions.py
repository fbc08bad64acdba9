"""Functions as users write them, for the executor that calls functions."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from executors import PermanentError, RetryableError
from executors.calls import CallContext

NUMBER = 7


def greet(name: str, greeting: str = "hello") -> dict[str, str]:
    print(f"{greeting} {name}")
    print("to stderr", file=sys.stderr)
    return {"said": f"{greeting} {name}"}


def echo(**inputs: Any) -> dict[str, Any]:
    return inputs


def give(what: str) -> Any:
    return {
        "none": None,
        "number": 3,
        "list": [1, (2, "x")],
        "set": {1},
        "nested": {"a": [{"b": object()}]},
        "keys": {1: 2},
    }[what]


def where() -> dict[str, Any]:
    return {"pid": os.getpid(), "thread": threading.current_thread().name, "stdin": sys.stdin.read()}


def describe_run(run: CallContext) -> dict[str, Any]:
    return {
        "name": run.run_name,
        "key": run.key,
        "attempt": run.attempt,
        "at": str(run.scheduled_at),
        "covers": [str(moment) for moment in run.covers or ()],
        "secret": run.secrets["api"],
    }


def fail(how: str) -> None:
    if how == "retryable":
        raise RetryableError("try later", retry_after=90, outcome_known=False)
    if how == "permanent":
        raise PermanentError("never again")
    if how == "exit":
        sys.exit(4)
    if how == "exit 0":
        sys.exit(0)
    if how == "os exit":
        os._exit(5)
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    raise UnprintableError(how) if how == "unprintable" else ValueError(f"wrong: {how}")


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def sleep_long(told: str) -> None:
    try:
        print(os.getpid(), flush=True)
        time.sleep(1000)
    finally:
        Path(told).write_text("cleaned up")


def sleep_deaf() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    while True:
        time.sleep(1000)


def wait_for(gate: str) -> str:
    print("waiting", flush=True)
    return Path(gate).read_text()


async def greet_async(name: str) -> dict[str, str]:
    print(f"hello {name}")
    await asyncio.sleep(0)
    print(f"bye {name}")
    return {"said": name, "thread": threading.current_thread().name, "pid": str(os.getpid())}


async def sleep_async() -> None:
    print("asleep")
    try:
        await asyncio.sleep(1000)
    finally:
        print("woken")


async def fail_async(how: str) -> None:
    fail(how)


class Report:
    def __call__(self, region: str) -> str:
        return f"report of {region}"

    class Inner:
        @staticmethod
        def build() -> str:
            return "built"


report = Report()

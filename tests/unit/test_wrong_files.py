"""More than a hundred wrong files: each is refused in one screen, every line of it naming file, path and reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from executors.registry import check_config, resolve
from scheduler.errors import ConfigError, Problem
from scheduler.manifests import load_manifests
from scheduler.settings import Settings

SCREEN_LINES, SCREEN_COLUMNS = 20, 200
PROJECTS = {"flytesnacks": ("development", "production")}


class Case(NamedTuple):
    """`expected`: for each line, in order, how what follows the file's name begins, and a part of the rest."""

    name: str
    text: str | bytes
    expected: tuple[tuple[str, str], ...]


def case(name: str, text: str | bytes, *expected: tuple[str, str]) -> Case:
    return Case(name, text, expected)


def task(lines: str, head: str = "name: report, version: v1, executor: logging") -> str:
    return f"tasks:\n  - {{{head}{', ' + lines if lines else ''}}}\n"


def trigger(lines: str) -> str:
    return task(f"triggers: [{{{lines}}}]")


T0 = "tasks[0]"
TRIGGER = "tasks[0].triggers[0]"

# What no file may be, whether it holds settings or manifests.
ANY_FILE = [
    case("an empty file", "", ("is empty", "")),
    case("a file of comments", "# nothing\n", ("is empty", "")),
    case("a file that says null", "null\n", ("is empty", "")),
    case("an empty document", "---\n", ("is empty", "")),
    case("a list at the top", "- a\n- b\n", ("", "a list")),
    case("a text at the top", "hello\n", ("", "a text")),
    case("a number at the top", "12\n", ("", "a number")),
    case("Latin-1", "# Zürich\na: 1\n".encode("latin-1"), ("line 1", "is not UTF-8 text: save the file as UTF-8")),
    case("UTF-16", "a: 1\n".encode("utf-16"), ("line 1", "is not UTF-8")),
    case("a control character", b"a: \x01\n", ("", "remove the control character")),
    case("a Python object", "tasks: !!python/object:os.system [x]\n", ("tasks (line 1)", "!!python/object:os.system")),
    case("a Python call", "tasks: !!python/object/apply:os.system ['x']\n", ("tasks (line 1)", "not allowed")),
    case("an unknown tag", "tasks: !vault secret\n", ("tasks (line 1)", "the tag !vault is not allowed")),
    case("binary", "tasks: !!binary aGVsbG8=\n", ("tasks (line 1)", "the tag !!binary is not allowed")),
    case("an unclosed bracket", "tasks: [config\n", ("line", "a [ is not closed")),
    case("an unclosed brace", "worker: {lease: 3s\n", ("line", "a { is not closed")),
    case("an unclosed quote", 'tasks: "config\n', ("line", "the quote is not closed")),
    case("a tab as indentation", "worker:\n\tlease: 3s\n", ("line 2", "indent with spaces, not tabs")),
    case("a colon in a text", "tasks: a: b\n", ("line 1", "quote a text that contains ': '")),
    case("a lost indentation", "worker:\n   lease: 3s\n  name: x\n", ("line 3", "check the indentation")),
    case("two documents", "tasks: []\n---\ntasks: []\n", ("line 2", "a second document begins here")),
    case("a key twice", "tasks: []\ntasks: []\n", ("tasks (line 2)", "the key 'tasks' appears twice")),
    case("an unknown alias", "tasks: *nowhere\n", ("tasks (line 1)", "*nowhere has no anchor")),
    case("a value inside itself", "tasks: &a [*a]\n", ("tasks[0] (line 1)", "refers to the value that contains it")),
    case("a list as key", "? [a, b]\n: c\n", ("line 1", "a key must be a text")),
    case("a number as key", "404: x\n", ("line 1", 'the key 404 is not a text: quote it: "404"')),
    case("an infinite number", "tasks: .inf\n", ("tasks (line 1)", "not a number that can be stored")),
    case("NUL in a text", 'tasks: "a\\0b"\n', ("tasks (line 1)", "NUL")),
    case("depth without end", "tasks: " + "[" * 500 + "\n", ("tasks[0]", "is nested deeper than 64 levels")),
    case(
        "an alias bomb",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        ("f", "repeat more than 1,000,000 values"),
    ),
]

MANIFESTS = [
    case(
        "nothing to deploy", "project: flytesnacks\n", ("(line 1)", "defines nothing: tasks or calendars are missing")
    ),
    case("an unknown top key", "task: []\ntasks: []\n", ("task (line 1)", "did you mean tasks?")),
    case("tasks as a mapping", "tasks: {name: x}\n", ("tasks (line 1)", "is a mapping, not a list")),
    case("a task as a text", "tasks: [report]\n", ("tasks[0] (line 1)", "'report' is a text, not a mapping")),
    case("an empty task", "tasks:\n  -\n", ("tasks[0] (line 2)", "is empty")),
    case(
        "a task without anything",
        "tasks: [{}]\n",
        ("tasks[0].name", "is missing"),
        ("tasks[0].version", "is missing"),
        ("tasks[0].executor", "is missing"),
    ),
    case(
        "a name that is a number", task("", "name: 5, version: v1, executor: logging"), (f"{T0}.name", 'quote it: "5"')
    ),
    case(
        "a version 1.10", task("", "name: a, version: 1.10, executor: logging"), (f"{T0}.version", 'quote it: "1.10"')
    ),
    case(
        "a version true", task("", "name: a, version: true, executor: logging"), (f"{T0}.version", 'quote it: "true"')
    ),
    case(
        "a version 1e10", task("", "name: a, version: 1e10, executor: logging"), (f"{T0}.version", 'quote it: "1e10"')
    ),
    case("an empty version", task("", "name: a, version: , executor: logging"), (f"{T0}.version", "is empty")),
    case("an empty name", task("", 'name: "", version: v1, executor: logging'), (f"{T0}.name", "is empty")),
    case("a slash in a name", task("", "name: a/b, version: v1, executor: logging"), (f"{T0}.name", "contains '/'")),
    case("outer spaces", task("", 'name: " a", version: v1, executor: logging'), (f"{T0}.name", "ends with a space")),
    case(
        "a bell in a name",
        task("", 'name: "a\\a", version: v1, executor: logging'),
        (f"{T0}.name", "control character"),
    ),
    case(
        "a name too long", task("", f"name: {'x' * 256}, version: v1, executor: logging"), (f"{T0}.name", "at most 255")
    ),
    case("an unknown key", task("timout: 3s"), (f"{T0}.timout (line 2)", "did you mean timeout?")),
    case("a key unlike any", task("zzz: 3s"), (f"{T0}.zzz", "unknown key: known here are")),
    case("config as a list", task("config: [a]"), (f"{T0}.config", "is a list, not a mapping")),
    case("inputs as a text", task("inputs: a"), (f"{T0}.inputs", "is a text, not a mapping")),
    case("an input named by a number", task("inputs: {1: a}"), (f"{T0}.inputs", "the key 1 is not a text")),
    case("an input twice", task("inputs: {a: 1, a: 2}"), (f"{T0}.inputs.a", "appears twice")),
    case("a timeout without unit", task("timeout: 30"), (f"{T0}.timeout", "write 30s")),
    case("a timeout in words", task("timeout: ten minutes"), (f"{T0}.timeout", "is not a duration")),
    case("a timeout of nothing", task("timeout: 0s"), (f"{T0}.timeout", "must be longer than 0s")),
    case("a timeout of ages", task("timeout: 99999999d"), (f"{T0}.timeout", "too long")),
    case("a negative deadline", task("deadline: -5s"), (f"{T0}.deadline", "is not a duration")),
    case("no attempt", task("retries: {max_attempts: 0}"), (f"{T0}.retries.max_attempts", "0 is not within")),
    case("half an attempt", task("retries: {max_attempts: 1.5}"), (f"{T0}.retries.max_attempts", "not a whole number")),
    case("attempts in quotes", task('retries: {max_attempts: "3"}'), (f"{T0}.retries.max_attempts", "is a text")),
    case("a shrinking back-off", task("retries: {multiplier: 0.5}"), (f"{T0}.retries.multiplier", "0.5 is not within")),
    case("an unknown key in retries", task("retries: {attempts: 3}"), (f"{T0}.retries.attempts", "max_attempts?")),
    case("retries as a number", task("retries: 3"), (f"{T0}.retries", "not a mapping")),
    case("no concurrent run", task("max_concurrent_runs: 0"), (f"{T0}.max_concurrent_runs", "0 is not within")),
    case("an unknown on_lost", task("on_lost: ignore"), (f"{T0}.on_lost", "'ignore' is none of retry, fail")),
    case("an unknown on_unknown", task("on_unknown: retry"), (f"{T0}.on_unknown", "'retry' is none of fail, resubmit")),
    case("environment as a text", task("environment: prod"), (f"{T0}.environment", "not a mapping")),
    case(
        "an environment's unknown key", task("environment: {nam: x}"), (f"{T0}.environment.nam", "did you mean name?")
    ),
    case("a description that is a list", task("description: [a]"), (f"{T0}.description", "is a list, not a text")),
    case("an unknown executor", task("", "name: a, version: v1, executor: shel"), (f"{T0}.executor", "not declared")),
    case("a shell without command", task("", "name: a, version: v1, executor: shell"), (f"{T0}.config", "command")),
    case(
        "a wrong executor config",
        task("config: {command: [date], env: {A: 1}, commnd: x}", "name: a, version: v1, executor: shell"),
        (f"{T0}.config", ""),
        (f"{T0}.config", ""),
    ),
    case("an unknown project", "project: other\n" + task(""), ("project (line 1)", "'other' is not a project known")),
    case(
        "an unknown domain", "domain: test\n" + task(""), ("domain (line 1)", "'test' is not a domain of flytesnacks")
    ),
    case("a project that is a number", "project: 5\n" + task(""), ("project (line 1)", 'quote it: "5"')),
    case(
        "the same task twice",
        "tasks:\n  - {name: a, version: v1, executor: logging}\n  - {name: a, version: v2, executor: logging}\n",
        ("tasks[1].name (line 3)", "is defined twice: first at tasks[0]"),
    ),
    case("triggers as a mapping", task("triggers: {name: x}"), (f"{T0}.triggers", "not a list")),
    case("a trigger as a text", task("triggers: [nightly]"), (TRIGGER, "not a mapping")),
    case("a trigger without name", trigger('cron: "0 2 * * *"'), (f"{TRIGGER}.name", "is missing")),
    case("a trigger's unknown key", trigger("name: n, evry: 5s"), (f"{TRIGGER}.evry", "did you mean every?")),
    case(
        "two triggers of one name",
        task("triggers: [{name: n, every: 5s}, {name: n, every: 9s}]"),
        ("tasks[0].triggers[1].name", "used twice in this task"),
    ),
    case("two schedules", trigger('name: n, every: 5s, cron: "@daily"'), (TRIGGER, "has cron and every")),
    case("a minute 61", trigger('name: n, cron: "61 * * * *"'), (f"{TRIGGER}.cron", "minute: 61 is not within 0–59")),
    case("too few fields", trigger('name: n, cron: "* * *"'), (f"{TRIGGER}.cron", "has 3 fields")),
    case("an unknown day", trigger('name: n, cron: "0 0 * * FRY"'), (f"{TRIGGER}.cron", "day-of-week: 'FRY'")),
    case("the 31st of February", trigger('name: n, cron: "0 0 31 2 *"'), (f"{TRIGGER}.cron", "matches no time")),
    case("an unknown @word", trigger('name: n, cron: "@dayly"'), (f"{TRIGGER}.cron", "'@dayly' is none of")),
    case("an empty cron", trigger("name: n, cron: "), (f"{TRIGGER}.cron", "is empty")),
    case("a cron that is a number", trigger("name: n, cron: 5"), (f"{TRIGGER}.cron", "not a mapping")),
    case("an unquoted star", "tasks:\n  - cron: * * * * *\n", ("line 2", "quote a text that begins with *")),
    case("an unquoted @daily", "tasks:\n  - cron: @daily\n", ("line 2", "quote a text that begins with @")),
    case(
        "an unknown zone",
        trigger('name: n, cron: {expression: "0 2 * * *", timezone: Europe/Pariss}'),
        (f"{TRIGGER}.cron.timezone", "did you mean Europe/Paris?"),
    ),
    case(
        "an unknown zone in the expression",
        trigger('name: n, cron: "CRON_TZ=Mars/Base 0 2 * * *"'),
        (f"{TRIGGER}.cron", "'Mars/Base' is not in the time-zone database"),
    ),
    case(
        "two zones",
        trigger('name: n, cron: {expression: "CRON_TZ=Europe/Paris 0 2 * * *", timezone: UTC}'),
        (f"{TRIGGER}.cron.timezone", "'UTC' contradicts 'Europe/Paris'"),
    ),
    case(
        "a cron wrong in every part",
        trigger(
            'name: n, cron: {expression: "0 99 * * *", timezone: X, dialect: vixie, day_rule: any, dst: both, tz: Y}'
        ),
        (f"{TRIGGER}.cron.tz", "unknown key"),
        (f"{TRIGGER}.cron.dialect", "'vixie' is none of"),
        (f"{TRIGGER}.cron.day_rule", "'any' is none of"),
        (f"{TRIGGER}.cron.dst", "'both' is none of"),
        (f"{TRIGGER}.cron.timezone", "'X' is not in the time-zone database"),
        (f"{TRIGGER}.cron", "99 is not within 0–23"),
    ),
    case(
        "a cron without expression",
        trigger("name: n, cron: {timezone: UTC}"),
        (f"{TRIGGER}.cron.expression", "missing"),
    ),
    case(
        "every half second", trigger("name: n, every: 500ms"), (f"{TRIGGER}.every", "whole, positive number of seconds")
    ),
    case("every five of nothing", trigger("name: n, every: 5"), (f"{TRIGGER}.every", "write 5s")),
    case("every now and then", trigger("name: n, every: often"), (f"{TRIGGER}.every", "is not a duration")),
    case(
        "a rate without unit", trigger("name: n, fixed_rate: {value: 5}"), (f"{TRIGGER}.fixed_rate.unit", "is missing")
    ),
    case(
        "a rate of zero weeks from a day",
        trigger("name: n, fixed_rate: {value: 0, unit: week, start_time: 2026-01-01}"),
        (f"{TRIGGER}.fixed_rate.value", "0 is not within"),
        (f"{TRIGGER}.fixed_rate.unit", "'week' is none of second, minute, hour, day"),
        (f"{TRIGGER}.fixed_rate.start_time", "has no zone"),
    ),
    case("a rate as a text", trigger("name: n, fixed_rate: 5m"), (f"{TRIGGER}.fixed_rate", "not a mapping")),
    case("a day as an instant", trigger("name: n, at: 2026-12-24"), (f"{TRIGGER}.at", "has no zone: add Z")),
    case("a naive instant", trigger("name: n, at: 2026-12-24T18:00:00"), (f"{TRIGGER}.at", "has no zone: add Z")),
    case("no instant at all", trigger("name: n, at: Christmas"), (f"{TRIGGER}.at", "is not a time like")),
    case(
        "an instant long after", trigger("name: n, at: 2300-01-01T00:00:00Z"), (f"{TRIGGER}.at", "not within 1970–2199")
    ),
    case(
        "a wrong policy",
        trigger("name: n, catchup: {policy: some}"),
        (f"{TRIGGER}.catchup.policy", "'some' is none of"),
    ),
    case(
        "a window longer than a hundred years",
        trigger("name: n, catchup: {window: 99999999d}"),
        (f"{TRIGGER}.catchup.window", "'99999999d' is too long"),
    ),
    case(
        "an environment with a long name",
        f"tasks: [{{name: t, version: v1, executor: logging, environment: {{name: {'e' * 300}}}}}]\n",
        ("tasks[0].environment.name", "has 300 characters: at most 255"),
    ),
    case("a policy alone", trigger("name: n, catchup: all"), (f"{TRIGGER}.catchup", "not a mapping")),
    case(
        "a negative cap",
        trigger("name: n, catchup: {max_runs: -1}"),
        (f"{TRIGGER}.catchup.max_runs", "-1 is not within"),
    ),
    case("a window in days", trigger("name: n, catchup: {window: 7}"), (f"{TRIGGER}.catchup.window", "not a duration")),
    case(
        "a wrong overlap", trigger("name: n, every: 5s, overlap: queue"), (f"{TRIGGER}.overlap", "'queue' is none of")
    ),
    case("no jitter", trigger("name: n, every: 5s, jitter: some"), (f"{TRIGGER}.jitter", "is not a duration")),
    case(
        "yes for true", trigger("name: n, every: 5s, active: yes"), (f"{TRIGGER}.active", "'yes' is a text, not true")
    ),
    case("no fire at all", trigger("name: n, every: 5s, max_fires: 0"), (f"{TRIGGER}.max_fires", "0 is not within")),
    case(
        "pause after 0", trigger("name: n, every: 5s, pause_on_failure: 0"), (f"{TRIGGER}.pause_on_failure", "0 is not")
    ),
    case(
        "an end before the start",
        trigger("name: n, every: 5s, start: 2027-01-01T00:00:00Z, end: 2026-01-01T00:00:00Z"),
        (f"{TRIGGER}.end", "is not after start"),
    ),
    case("a start without zone", trigger("name: n, every: 5s, start: 2026-01-01"), (f"{TRIGGER}.start", "has no zone")),
    case(
        "an unknown calendar", trigger("name: n, every: 5s, calendars: [hols]"), (f"{TRIGGER}.calendars[0]", "'hols'")
    ),
    case(
        "a calendar's bad name",
        trigger('name: n, every: 5s, calendars: ["a\\a"]'),
        (TRIGGER, "control"),
        (TRIGGER, "'a"),
    ),
    case(
        "a calendar in a trigger that is wrong in every part",
        trigger("name: n, every: 5s, calendars: [{dates: [x], day: 1}, 5, {name: h}]"),
        (f"{TRIGGER}.calendars[0].day", "unknown key"),
        (f"{TRIGGER}.calendars[0].name", "is missing"),
        (f"{TRIGGER}.calendars[1]", "not a calendar's name"),
        (f"{TRIGGER}.calendars[2].dates", "is missing"),
    ),
    case("calendars as a text", trigger("name: n, every: 5s, calendars: hols"), (f"{TRIGGER}.calendars", "not a list")),
    case(
        "a calendar wrong in every part",
        "calendars: {h: {dates: [2026-02-30, 5, someday], policy: maybe, day: x}}\n",
        ("calendars.h.day", "unknown key"),
        ("calendars.h.policy", "'maybe' is none of skip, previous, next"),
        ("calendars.h.dates[0]", "'2026-02-30' is not a date"),
        ("calendars.h.dates[1]", 'quote it: "5"'),
        ("calendars.h.dates[2]", "'someday' is not a date"),
    ),
    case("a calendar without dates", "calendars: {h: {}}\n", ("calendars.h.dates", "is missing")),
    case("calendars as a list", "calendars: [2026-12-25]\n", ("calendars", "is a list, not a mapping")),
]

SETTINGS = [
    case("an unknown key", "workers: {}\n", ("workers (line 1)", "did you mean worker?")),
    case("an unknown key below", "worker: {leese: 3s}\n", ("worker.leese (line 1)", "did you mean lease?")),
    case("a key in the wrong place", "lease: 3s\n", ("lease (line 1)", "lease stands under worker")),
    case("a top key below", "web: {auth: {}}\n", ("web.auth (line 1)", "auth stands at the top level")),
    case("a key twice", "worker: {lease: 3s, lease: 4s}\n", ("worker.lease (line 1)", "appears twice")),
    case("a section as a text", "worker: fast\n", ("worker (line 1)", "is a text, not a mapping")),
    case("a section as a list", "worker: [lease]\n", ("worker (line 1)", "is a list, not a mapping")),
    case("a lease without unit", "worker: {lease: 30}\n", ("worker.lease", "write 30s")),
    case("a lease too short", "worker: {lease: 500ms}\n", ("worker.lease", "500ms is not within 1s to 1d")),
    case("a lease in words", "worker: {lease: long}\n", ("worker.lease", "'long' is not a duration")),
    case("an empty value", "worker: {lease: }\n", ("worker.lease", "is empty: give it a value or remove the key")),
    case("no batch", "worker: {fire_batch: 0}\n", ("worker.fire_batch", "0 is too small: at least 1")),
    case("too large a batch", "worker: {fire_batch: 10001}\n", ("worker.fire_batch", "10001 is too large")),
    case("no room", "worker: {max_concurrent_runs: 0}\n", ("worker.max_concurrent_runs", "at least 1")),
    case("a number in quotes", 'worker: {max_lost: "5"}\n', ("worker.max_lost", "'5' is a text, not a whole number")),
    case("a number with a fraction", "worker: {max_lost: 1.5}\n", ("worker.max_lost", "not a whole number")),
    case("an octal port", "web: {port: 0080}\n", ("web.port", "'0080' is a text, not a whole number")),
    case("a time as port", "web: {port: 12:30}\n", ("web.port", "'12:30' is a text, not a whole number")),
    case("a port too high", "web: {port: 65536}\n", ("web.port", "65536 is too large: at most 65535")),
    case("a negative port", "web: {port: -1}\n", ("web.port", "-1 is too small: at least 0")),
    case("yes for true", "web: {enabled: yes}\n", ("web.enabled", "'yes' is a text, not true or false")),
    case("on for true", "create_projects: on\n", ("create_projects", "'on' is a text, not true or false")),
    case("one for true", "create_projects: 1\n", ("create_projects", "1 is a number, not true or false")),
    case("a version as name", "worker: {name: 1.10}\n", ("worker.name", 'quote it: "1.10"')),
    case("an open door", "web: {host: 0.0.0.0}\n", ("web.host", "can be reached from other machines: add auth.tokens")),
    case("an unknown format", "logs: {format: xml}\n", ("logs.format", "'xml' is none of console, json")),
    case("an unknown level", "logs: {level: INFO}\n", ("logs.level", "'INFO' is none of debug, info")),
    case("no pool", "database: {pool_size: 0}\n", ("database.pool_size", "at least 1")),
    case("MySQL", "database: {url: 'mysql://u:hunter2@h/d'}\n", ("database.url", "only sqlite and postgresql")),
    case("another driver", "database: {url: 'postgresql+asyncpg://h/d'}\n", ("database.url", "write postgresql://")),
    case("no URL", "database: {url: scheduler.db}\n", ("database.url", "is not a database URL")),
    case("an empty URL", "database: {url: ''}\n", ("database.url", "is empty")),
    case("two slashes", "database: {url: 'sqlite://scheduler.db'}\n", ("database.url", "needs three slashes")),
    case("a database in memory", "database: {url: 'sqlite://'}\n", ("database.url", "would forget every run")),
    case("a port in words", "database: {url: 'postgresql://h:high/d'}\n", ("database.url", "is its port a number?")),
    case("a # in a password", "database: {url: 'postgresql://u:1#hunter2@h/d'}\n", ("database.url", "percent-encode")),
    case("an unknown zone", "defaults: {timezone: Europe/London2}\n", ("defaults.timezone", "mean Europe/London?")),
    case("an unknown project", "defaults: {project: other}\n", ("defaults.project", "'other' is none of flytesnacks")),
    case("an unknown domain", "defaults: {domain: test}\n", ("defaults.domain", "in project flytesnacks")),
    case("a bad project name", "projects: {a/b: [development]}\n", ("projects['a/b']", "contains '/'")),
    case("domains as a text", "projects: {a: development}\n", ("projects.a", "is a text, not a list")),
    case("an empty domain", "projects: {a: ['']}\n", ("projects.a[0]", "is empty")),
    case("tasks as a text", "tasks: config/tasks\n", ("tasks", "is a text, not a list")),
    case("an empty task path", "tasks: ['']\n", ("tasks[0]", "is empty: name a file or a folder")),
    case(
        "a count beyond all",
        f"retention: {{runs_per_trigger: {10**30}}}\n",
        ("retention.runs_per_trigger", "too large"),
    ),
    case("a task path that is a number", "tasks: [5]\n", ("tasks[0]", "5 is a number")),
    case("an executor as a text", "executors: {slack: slack}\n", ("executors.slack", "not a mapping")),
    case("an executor without use", "executors: {slack: {}}\n", ("executors.slack.use", "is missing, but required")),
    case(
        "an executor's unknown key", "executors: {s: {use: s, option: {}}}\n", ("executors.s.option", "mean options?")
    ),
    case("options as a list", "executors: {s: {use: s, options: [a]}}\n", ("executors.s.options", "not a mapping")),
    case("an executor's bad name", "executors: {'a/b': {use: s}}\n", ("executors['a/b']", "contains '/'")),
    case(
        "a rate without burst", "executors: {s: {use: s, rate_limit: 5}}\n", ("executors.s.rate_limit", "not a mapping")
    ),
    case(
        "a rate of 0",
        "executors: {s: {use: s, rate_limit: {per_second: 0}}}\n",
        ("executors.s.rate_limit", "more than"),
    ),
    case("a secret in clear", "secrets: {key: hunter2}\n", ("secrets.key", "is a text, not a mapping")),
    case("a secret as a variable", "secrets: {key: {env: 'hunter 2'}}\n", ("secrets.key.env", "does not belong here")),
    case("a token in clear", "auth: {tokens: [{name: a, role: b, sha256: x}]}\n", ("auth.tokens[0].sha256", "64 hex")),
    case("retention of nothing", "retention: {runs: 0s}\n", ("retention.runs", "0s is not within")),
    case(
        "faults in many sections",
        "worker: {lease: 1ms, max_lost: 0}\nlogs: {level: loud}\nweb: {host: 0.0.0.0}\nfoo: 1\n",
        ("worker.lease (line 1)", ""),
        ("worker.max_lost (line 1)", ""),
        ("logs.level (line 2)", ""),
        ("foo (line 4)", "unknown key"),
        ("web.host (line 3)", ""),
    ),
]


def check_executor(executor: str, config: Mapping[str, Any], inputs: Mapping[str, Any]) -> Iterator[Problem]:
    if executor not in ("logging", "shell"):
        yield Problem("executor", f"{executor!r} is not declared in the settings")
        return
    for path, reason in check_config(resolve(executor), config):
        yield Problem(f"config.{path}" if path else "config", reason)


def assert_says(error: ConfigError, file: str, expected: tuple[tuple[str, str], ...]) -> None:
    lines = str(error).splitlines()
    assert len(lines) == len(error.problems) <= SCREEN_LINES
    for line in lines:
        assert len(line) <= SCREEN_COLUMNS
        assert line.startswith(f"{file}: "), line
        assert "hunter" not in line
    assert len(lines) == len(expected), str(error)
    for line, (where, reason) in zip(lines, expected, strict=True):
        said = line.removeprefix(f"{file}: ")
        assert said.startswith(where), line
        assert reason in said, line


def ids(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str | bytes) -> Path:
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize("wrong", MANIFESTS + ANY_FILE, ids=ids(MANIFESTS + ANY_FILE))
def test_a_wrong_manifest_is_refused_with_file_path_and_reason(wrong: Case) -> None:
    with pytest.raises(ConfigError) as caught:
        load_manifests([write("wrong.yaml", wrong.text)], projects=PROJECTS, check_executor=check_executor)
    assert_says(caught.value, "wrong.yaml", wrong.expected)


@pytest.mark.parametrize("wrong", SETTINGS + ANY_FILE, ids=ids(SETTINGS + ANY_FILE))
def test_wrong_settings_are_refused_with_file_path_and_reason(wrong: Case) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(write("wrong.yaml", wrong.text), {})
    assert_says(caught.value, "wrong.yaml", wrong.expected)


def test_there_are_more_than_a_hundred_wrong_files() -> None:
    assert len(MANIFESTS) + len(SETTINGS) + 2 * len(ANY_FILE) > 100
    assert len({case.name for case in MANIFESTS}) == len(MANIFESTS)


def test_one_wrong_file_among_right_ones_means_that_nothing_is_loaded() -> None:
    write("a.yaml", task(""))
    write("b.yaml", task("timeout: never", "name: other, version: v1, executor: logging"))
    with pytest.raises(ConfigError, match=r"b\.yaml: tasks\[0\]\.timeout \(line 2\): 'never'"):
        load_manifests(["."])


def test_the_faults_of_all_files_are_told_together() -> None:
    write("a.yaml", task("timeout: never"))
    write("b.yaml", "tasks: [\n")
    write("c.yaml", "")
    with pytest.raises(ConfigError) as caught:
        load_manifests(["a.yaml", "b.yaml", "c.yaml", "d.yaml"])
    assert [line.split(":")[0] for line in caught.value.lines()] == ["a.yaml", "b.yaml", "c.yaml", "d.yaml"]

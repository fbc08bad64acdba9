"""What an attempt printed: beginning and end are kept, whatever is written."""

from __future__ import annotations

import re
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from executors.output import LIMIT, Output


def test_little_output_is_kept_whole() -> None:
    output = Output()
    output.write(b"one\n")
    output.write("zwei \u00fc\n")
    assert output.text() == "one\nzwei \u00fc\n"
    assert output.bytes_left_out == 0


def test_exactly_the_limit_is_kept_whole() -> None:
    output = Output()
    output.write(b"x" * LIMIT)
    assert output.text() == "x" * LIMIT
    output.write(b"y")
    assert "bytes left out" in output.text()


def test_of_much_output_head_and_tail_are_kept_with_a_line_that_counts_the_rest() -> None:
    output = Output()
    for number in range(50_000):
        output.write(f"line {number}\n")
    text = output.text()
    assert text.startswith("line 0\nline 1\n")
    assert text.endswith("line 49999\n")
    assert len(text.encode()) <= LIMIT
    (left_out,) = re.findall(r"^… (\d+) bytes left out …$", text, re.MULTILINE)
    kept = len(text.encode()) - len(f"\n… {left_out} bytes left out …\n".encode())
    assert kept + int(left_out) == output.bytes_seen


def test_memory_does_not_grow_with_what_is_printed() -> None:
    output = Output()
    for _ in range(2_000):
        output.write(b"z" * 100_000)
    assert len(output._head) + len(output._tail) <= 3 * LIMIT


def test_bytes_that_are_no_text_are_marked() -> None:
    output = Output()
    output.write(b"a\xff\xfeb\0c")
    assert output.text() == "a\ufffd\ufffdb\ufffdc"


def test_a_character_cut_by_two_writes_is_whole_again() -> None:
    output = Output()
    for byte in "€ü".encode():
        output.write(bytes([byte]))
        # Looking at it meanwhile does not break it.
        output.text()
    assert output.text() == "€ü"
    output.write("€".encode()[:2])
    assert output.text() == "€ü\ufffd"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=400), st.text(max_size=200)), max_size=30))
def test_whatever_is_written_the_text_is_sound_and_within_the_limit(parts: list[bytes | str]) -> None:
    output = Output(limit=512)
    for part in parts:
        assert output.write(part) == len(part)
    text = output.text()
    assert len(text.encode()) <= 512
    assert "\0" not in text


def test_threads_may_write_at_once() -> None:
    output = Output(limit=1_000_000)
    threads = [threading.Thread(target=lambda: [output.write("0123456789") for _ in range(1_000)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert output.text() == "0123456789" * 8_000

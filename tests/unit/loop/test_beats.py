"""When alarms ring: in time, and never so often that looking becomes all the worker does."""

from __future__ import annotations

import asyncio
import time

from scheduler.loop.beats import Beats
from scheduler.loop.doorbell import Doorbell

MILLISECOND = 1_000


def test_an_alarm_rings_in_time_however_near_its_instant_is_when_it_is_armed() -> None:
    async def rung() -> list[str]:
        beats, heard, last = Beats(), [], asyncio.Event()

        def ring_later() -> None:
            heard.append("later")
            last.set()

        beats.start()
        beats.alarm("later", 45 * MILLISECOND, ring_later)
        beats.alarm("sooner", 5 * MILLISECOND, lambda: heard.append("sooner"))
        async with asyncio.timeout(10):
            await last.wait()
        beats.stop()
        return heard

    assert asyncio.run(rung()) == ["sooner", "later"]


def test_an_alarm_that_is_armed_for_now_again_and_again_rings_twenty_times_a_second_at_most() -> None:
    async def rings() -> tuple[int, float]:
        beats, bell, number = Beats(), Doorbell(), 0
        beats.start()
        began = time.monotonic()
        while time.monotonic() - began < 0.5:
            beats.alarm("due", 0, bell.ring)
            async with asyncio.timeout(10):
                await bell.wait()
            number += 1
        beats.stop()
        return number, time.monotonic() - began

    number, seconds = asyncio.run(rings())
    assert 2 <= number <= seconds / 0.05 + 1


def test_an_alarm_taken_away_rings_no_more() -> None:
    async def rung() -> list[str]:
        beats, heard, last = Beats(), [], asyncio.Event()
        beats.start()
        beats.alarm("taken", 5 * MILLISECOND, lambda: heard.append("taken"))
        beats.alarm("taken", None, lambda: heard.append("taken"))
        beats.alarm("last", 20 * MILLISECOND, last.set)
        async with asyncio.timeout(10):
            await last.wait()
        beats.stop()
        return heard

    assert asyncio.run(rung()) == []

"""Times of programs that take turns, so that all meet the same moods of a machine."""

import time
from collections.abc import Callable


def by_turns(programs: dict[str, Callable], repetitions: int) -> dict[str, list[float]]:
    """Milliseconds of each program in each repetition, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for repetition in range(repetitions + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            if repetition:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times

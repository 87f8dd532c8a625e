"""A row of the suite speed: the same columns in all parts, of which some are empty."""

from typing import Any

from benchmarks._suite import Row

from .timing import Compiled, Times

MEASURED = ("time_us", "flops", "temp_bytes", "growth_bytes")


def row(part: str, name: str, samples: int, against: str, **found: Any) -> Row:
    """All columns, of which some are None."""
    columns = [f"{whose}{what}" for what in MEASURED for whose in ("", "other_")]
    empty = dict.fromkeys(["ratio", "q25", "q75", "wall_ratio", *columns, "wall_us", "note"])
    head = {"part": part, "case": name, "samples": samples, "against": against}
    return head | empty | found


def timed(ours: Times, theirs: Times) -> dict[str, float]:
    """The columns of the times of two programs."""
    return {**ours.over(theirs), "time_us": ours.time_us, "other_time_us": theirs.time_us}


def held(ours: Compiled, theirs: Compiled) -> dict[str, float]:
    """The columns of the flops and the memory of two programs."""
    return {
        "flops": ours.flops,
        "other_flops": theirs.flops,
        "temp_bytes": ours.temp_bytes,
        "other_temp_bytes": theirs.temp_bytes,
    }

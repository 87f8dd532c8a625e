"""The tables of the suite speed: on the terminal, and in docs/speed.md."""

from statistics import median
from typing import Any

from rich import box
from rich.table import Table

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row


def terminal(results: Results) -> Table:
    """All ratios, and what was skipped."""
    table = Table(
        title=f"speed, on {results['device']}: ratios of {clock(results)}, ours to another's",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    # Narrow enough for 80 columns.
    table.add_column("case", max_width=31)
    table.add_column("samples", justify="right", no_wrap=True)
    table.add_column("against", max_width=23)
    for name in ("ratio", "quartiles"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in results["rows"]:
        if row["part"] not in ("alike", "chunks", "compile"):
            head = [row["case"], str(row["samples"] or ""), row["note"] or row["against"]]
            spread = "" if row["ratio"] is None else f"{_short(row['q25'])}-{_short(row['q75'])}"
            table.add_row(*head, _short(row["ratio"]), spread)
    return table


def clock(results: Results) -> str:
    """The kind of time that is measured on the device."""
    return "CPU time" if results["device"] == "cpu" else "wall time"


def hand(results: Results) -> str:
    """Time, flops and memory, relative to hand-written code."""
    header = [
        *("estimator and problem", "samples", f"{clock(results)}, µs", "ratio to the best by hand"),
        *("written as", "flops", "temporary memory"),
        *("ratio to the same by hand", "flops", "ratio to draws in bulk"),
    ]
    lines = []
    found = {(row["case"], row["part"]): row for row in results["rows"]}
    for name in dict.fromkeys(row["case"] for row in results["rows"] if row["part"] == "hand"):
        best, alike, bulk = (found.get((name, part)) for part in ("hand", "alike", "bulk"))
        assert best is not None
        cells = [name, str(best["samples"]), short(best["time_us"], ".0f"), _ratio(best)]
        cells += [best["against"], _by(best, "flops"), _by(best, "temp_bytes")]
        lines.append([*cells, _ratio(alike), _by(alike, "flops"), _ratio(bulk)])
    return markdown(header, lines, words=(0, 4))


def many(results: Results) -> str:
    """Time and memory by the number of samples."""
    header = [
        *("estimator", "samples", f"{clock(results)}, ms", "unchunked", "ratio"),
        *("temporary memory, MiB", "unchunked", "growth of the process, MiB", "unchunked"),
    ]
    lines = []
    for row in results["rows"]:
        if row["part"] == "many":
            cells = [row["case"].split(",")[0], f"{row['samples']:,}".replace(",", " ")]
            cells += [_scaled(row[f"{whose}time_us"], 1e3) for whose in ("", "other_")]
            cells.append("not run" if row["note"] else _ratio(row))
            for what in ("temp_bytes", "growth_bytes"):
                cells += [_scaled(row[f"{whose}{what}"], 2**20) for whose in ("", "other_")]
            lines.append(cells)
    return markdown(header, lines)


def pay(results: Results) -> str:
    """All that is compared, in groups: the number of cases, and the least and the largest ratio."""
    lines = []
    for what, against, parts, names in _GROUPS:
        rows = [
            row
            for row in results["rows"]
            if row["part"] in parts and row["ratio"] and _is_one_of(row, names)
        ]
        if rows:
            ratios = sorted(row["ratio"] for row in rows)
            few = " to ".join(dict.fromkeys(_short(ratio) for ratio in (ratios[0], ratios[-1])))
            middle = _short(median(ratios))
            lines.append([what, against, str(len(rows)), middle, few])
    return markdown(
        ["what", "compared with", "cases", "median ratio", "range"], lines, words=(0, 1)
    )


# What is measured, against what, the parts of its rows, and what their names begin with.
_GROUPS: tuple[tuple[str, str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("`Pathwise`", "the best by hand", ("hand",), ("Pathwise",)),
    (
        "`ScoreFunction`, f costs nothing",
        "the best by hand",
        ("hand",),
        ("ScoreFunction, Normal", "ScoreFunction, Bernoulli", "ScoreFunction, Categorical"),
    ),
    (
        "`ScoreFunction`, f is a model",
        "the best by hand",
        ("hand",),
        ("ScoreFunction, logistic", "ScoreFunction, VAE"),
    ),
    ("`DisARM`", "the best by hand", ("hand",), ("DisARM",)),
    ("`REBAR`", "the same by hand", ("alike",), ("REBAR",)),
    ("`Enumerate`", "the best by hand", ("hand",), ("Enumerate",)),
    (
        "one key for each sample, Gaussians",
        "draws in bulk",
        ("bulk",),
        ("ScoreFunction, Normal", "Pathwise, Normal"),
    ),
    ("the default size of chunks", "the best size", ("chunks",), ("",)),
    ("10 000 samples of size 100", "the obvious jit", ("many",), ("", "10000")),
    ("30 000", "the obvious jit", ("many",), ("", "30000")),
    ("1 000 000", "the obvious jit", ("many",), ("", "1000000")),
    ("a jitted call that computes nothing", "jit by hand", ("call",), ("estimator closed",)),
    (
        "`GradientSNR` on the head",
        "the step alone",
        ("monitor",),
        ("VAE step with GradientSNR, head",),
    ),
    (
        "`GradientSNR` on all weights",
        "the step alone",
        ("monitor",),
        ("VAE step with GradientSNR, all",),
    ),
    ("a step of an autoencoder", "NumPyro", ("peers",), ("ScoreFunction, VAE",)),
)


def _is_one_of(row: Row, names: tuple[str, ...]) -> bool:
    if names[0]:
        return row["case"].startswith(names)
    return len(names) == 1 or row["samples"] == int(names[1])


def chunks(results: Results) -> str:
    """The default against the fastest of other sizes of chunks, by the number of samples."""
    rows = [row for row in results["rows"] if row["part"] == "chunks"]
    samples = sorted({row["samples"] for row in rows})
    found = {(row["case"], row["samples"]): row for row in rows}
    header = ["estimator, f and size", *(f"{n:,}".replace(",", " ") for n in samples)]
    lines = [
        [name, *(_short(found[name, n]["ratio"]) if (name, n) in found else "" for n in samples)]
        for name in dict.fromkeys(row["case"] for row in rows)
    ]
    return markdown(header, lines)


def beside(results: Results) -> str:
    """Time of one call, of a monitor, and of other packages."""
    header = [
        *(
            "estimator and problem",
            "samples",
            "compared with",
            f"{clock(results)}, µs",
            "its time, µs",
        ),
        *("ratio", "flops", "temporary memory"),
    ]
    lines = []
    for row in results["rows"]:
        if row["part"] in ("call", "monitor", "peers"):
            cells = [row["case"], str(row["samples"] or ""), row["against"]]
            cells += [_scaled(row[f"{whose}time_us"], 1) for whose in ("", "other_")]
            cells.append(row["note"] or _ratio(row))
            lines.append([*cells, _by(row, "flops"), _by(row, "temp_bytes")])
    return markdown(header, lines, words=(0, 2))


def draws(results: Results) -> str:
    """Time and memory to draw categories, by this library and by distrax."""
    header = ["task", "samples", "ratio of distrax to ours", "memory of distrax, MiB", "ours"]
    lines = []
    for row in results["rows"]:
        if row["part"] == "draws":
            cells = [row["case"], str(row["samples"] or ""), row["note"] or _inverse(row)]
            cells += [_scaled(row[f"{whose}temp_bytes"], 2**20) for whose in ("other_", "")]
            lines.append(cells)
    return markdown(header, lines)


def on_torch(results: Results) -> str:
    """Time of packages on PyTorch, relative to this one."""
    header = ["task", "samples", "compared with", f"{clock(results)}, ms", "its time, ms"]
    header.append("ratio of its time to ours")
    header.append("wall time")
    lines = []
    for row in results["rows"]:
        if row["part"] == "torch":
            cells = [row["case"], str(row["samples"] or ""), row["against"]]
            cells += [_scaled(row[f"{whose}time_us"], 1e3) for whose in ("", "other_")]
            if row["note"]:
                lines.append([*cells, row["note"], ""])
            else:
                times = 1 / row["wall_ratio"]
                lines.append([*cells, _inverse(row), _times(times, times)])
    return markdown(header, lines, words=(0, 2))


def compiling(results: Results) -> str:
    """Seconds to compile programs of many choices."""
    header = ["program", "choices", "CPU time, s", "wall time, s"]
    lines = []
    for row in results["rows"]:
        if row["part"] == "compile":
            seconds = [format(row[name] / 1e6, ".1f") for name in ("time_us", "wall_us")]
            lines.append([row["case"], str(row["samples"]), *seconds])
    return markdown(header, lines)


def _inverse(row: Row) -> str:
    """The ratio of the time of the other package to ours."""
    times, low, high = (_times(1 / row[name], 1 / row["q75"]) for name in ("ratio", "q75", "q25"))
    return f"{times} ({low} to {high})"


def _times(times: float, least: float) -> str:
    return format(times, ".0f" if least >= 10 else ".1f")


def _ratio(row: Row | None) -> str:
    if row is None or row["ratio"] is None:
        return ""
    return f"{_short(row['ratio'])} ({_short(row['q25'])} to {_short(row['q75'])})"


def _by(row: Row | None, what: str) -> str:
    """The library's by the other's."""
    if row is None or not row[f"other_{what}"]:
        return ""
    return _short(row[what] / row[f"other_{what}"])


def _short(ratio: float | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio:.2g}" if ratio < 0.1 else f"{ratio:.2f}"


def _scaled(value: Any, unit: float) -> str:
    if value is None:
        return ""
    return short(value / unit, ".3g" if value < 100 * unit else ".0f")

"""The tables of the suite `vi`: variances relative to none, in bold where a technique hurts."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row

from . import bounds as vi_bounds
from . import minibatch
from .comparison import beside_pathwise
from .targets import TARGETS

PARAMETERS = {"mean": "mean", "log_scale": "scale"}
# The last of the posteriors that are kept, over which the end of a run is averaged.
LAST = 5


def techniques(results: Results) -> str:
    """Variances of the logistic regression, relative to `Pathwise` alone; bold: it hurts."""
    rows = _of(results["rows"], target="logistic", form="Pathwise")
    return _ratios(rows, "estimator", _places(rows), timed=True)


def forms(results: Results) -> str:
    """Variances without a technique, relative to `Pathwise`: the regression, then networks."""
    rows = beside_pathwise(results["rows"])
    places = _places(_of(rows, target="logistic"))
    networks = [target for target in TARGETS if target != "logistic"]
    places += [(target, *place[1:]) for target in networks for place in places[:3]]
    return _ratios(rows, "form", places, timed=False)


def networks(results: Results) -> str:
    """Variances of the two networks, relative to plain `Pathwise`."""
    names = [target for target in TARGETS if target != "logistic"]
    rows = [row for name in names for row in _of(results["rows"], target=name, form="Pathwise")]
    return _ratios(rows, "estimator", _places(rows), timed=True)


def minibatches(results: Results) -> str:
    """Variances over minibatches and draws, relative to plain `Pathwise`."""
    rows = _of(results["rows"], target=minibatch.TARGET)
    return _ratios(rows, "estimator", _places(rows), timed=True)


def harm(results: Results) -> str:
    """All cases in which a technique increases a variance significantly."""
    rows = [row for row in results["rows"] if row["effect"] == "hurts"]
    header = ["technique", "along", "ratio of variances, and training step"]
    lines = []
    for name in dict.fromkeys(row["estimator"] for row in rows):
        for parameter, title in PARAMETERS.items():
            where = []
            found = _of(rows, estimator=name, parameter=parameter)
            for target, form in dict.fromkeys((row["target"], row["form"]) for row in found):
                some = _of(found, target=target, form=form)
                ratios = ", ".join(f"{row['relative_variance']:.2g} at {row['at']}" for row in some)
                where.append(f"{target} ({form}) {ratios}")
            if where:
                lines.append([name, title, "; ".join(where)])
    return markdown(header, lines, words=range(3))


def training(results: Results) -> str:
    """The ELBO at the end of each run, in nats: the median of the seeds."""
    names = list(dict.fromkeys(label.split(": ", 1)[1] for label in results["curves"]))
    lines = []
    for name in names:
        cells = []
        for target in TARGETS:
            curve = results["curves"].get(f"{target}: {name}")
            cells.append("" if curve is None else f"{_last(curve['elbo']):.2f}")
        lines.append([name, *cells])
    return markdown(["run", *TARGETS], lines)


def bounds(results: Results) -> str:
    """Signal-to-noise ratios by the number of samples, and their slope from 8 samples on."""
    rows = _of(results["rows"], target=vi_bounds.TARGET)
    ks = list(dict.fromkeys(row["at"] for row in rows))
    header = ["estimator", *(f"K = {k}" for k in ks), "slope", f"bias, K = {ks[-1]}"]
    lines = []
    for name in dict.fromkeys(row["form"] for row in rows):
        found = _of(rows, form=name)
        bias = found[-1]["relative_bias"]
        cells = [short(row["snr"], ".2g") for row in found]
        cells += [f"{slope(found):.2f}", "" if bias is None else f"{bias:.0%}"]
        lines.append([name, *cells])
    return markdown(header, lines)


def slope(rows: Sequence[Row], *, least: int = 8) -> float:
    """The slope of the log of the signal-to-noise ratio over log samples, from `least` on."""
    late = [row for row in rows if row["at"] >= least]
    late = late if len(late) > 1 else list(rows)
    x, y = (np.log([row[name] for row in late]) for name in ("at", "snr"))
    return float(np.polyfit(x, y, 1)[0])


def _of(rows: Iterable[Row], **values: Any) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def _places(rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    places = dict.fromkeys((row["target"], row["parameter"], row["at"]) for row in rows)
    order = list(PARAMETERS)
    return sorted(places, key=lambda p: (list(places)[0][0] != p[0], p[0], order.index(p[1]), p[2]))


def _ratios(
    rows: Sequence[Row], column: str, places: Sequence[tuple[Any, ...]], *, timed: bool
) -> str:
    targets = list(dict.fromkeys(target for target, _, _ in places))
    named = {target: f"{target}, " if len(targets) > 1 else "" for target in targets}
    titles = [f"{named[target]}{PARAMETERS[parameter]}, {at}" for target, parameter, at in places]
    times = [f"time, {named[target]}µs" for target in targets]
    name = "technique" if column == "estimator" else column
    header = [name, *titles, *(["evaluations of f", *times] if timed else [])]
    lines = []
    found = {(row[column], row["target"], row["parameter"], row["at"]): row for row in rows}
    for key in dict.fromkeys(row[column] for row in rows):
        mine = [found.get((key, *place)) for place in places]
        cells = [_ratio(row) for row in mine]
        if timed:
            rows_of = [next(row for row in mine if row and row["target"] == t) for t in targets]
            cells.append(str(rows_of[0]["evaluations"]))
            cells += [short(row["time_us"], ".0f") for row in rows_of]
        lines.append([key, *cells])
    return markdown(header, lines)


def _ratio(row: Row | None) -> str:
    if row is None:
        return ""
    text = f"{row['relative_variance']:.2g}"
    return f"**{text}**" if row["effect"] == "hurts" else text


def _last(elbo: Sequence[Sequence[float]]) -> float:
    return float(np.median(np.mean(np.asarray(elbo, float)[:, -LAST:], axis=1)))

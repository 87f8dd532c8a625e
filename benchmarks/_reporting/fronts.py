"""The Pareto fronts of variance against time: a panel and lines of a table for each ranking."""

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from benchmarks._suite import Ranking, Results, Row, Suite

from .markdown import markdown, short
from .plots import label_ends, panels

ADVISED, FRONT, OTHERS = "#0072B2", "#000000", "#999999"
# A variance below this part of the largest one is drawn at the edge: it is 0 but for rounding.
LEAST = 1e-8


def measured(
    suites: Mapping[str, Suite], results: Mapping[str, Results]
) -> Iterator[tuple[Ranking, list[Row]]]:
    """The problems of all suites with results, and their rows."""
    for name, suite in suites.items():
        for ranking in suite.rankings:
            if name in results and (rows := ranking.rows(results[name])):
                yield ranking, rows


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other row beats in both time and variance, the fastest first."""
    kept: list[Row] = []
    for row in sorted(rows, key=lambda row: (row["time_us"], row["variance"])):
        if not kept or row["variance"] < kept[-1]["variance"]:
            kept.append(row)
    return kept


def excess(rows: Sequence[Row], row: Row) -> float:
    """The variance relative to the least one at no more time: 1 on the front."""
    no_slower = [other["variance"] for other in rows if other["time_us"] <= row["time_us"]]
    return float(row["variance"] / min(no_slower))


def table(suites: Mapping[str, Suite], results: Mapping[str, Results]) -> str:
    """The advised estimators of each problem, beside the front."""
    lines = []
    for ranking, rows in measured(suites, results):
        best = min(row["variance_x_time"] for row in rows)
        for row in (row for row in rows if row["estimator"] in ranking.advised):
            above, product = excess(rows, row), row["variance_x_time"] / best
            cells = [ranking.title, row["estimator"], short(row["time_us"]), short(row["variance"])]
            lines.append([*cells, "on it" if above == 1 else f"{above:.2f}", f"{product:.2g}"])
    header = ("problem", "advised", "time, µs", "variance", "above the front")
    return markdown((*header, "variance × time, to the least"), lines, words=(0, 1))


def figure(suites: Mapping[str, Suite], results: Mapping[str, Results]) -> Figure:
    """A panel for each problem: every unbiased estimator, the front, and the names on it."""
    found = list(measured(suites, results))
    made, axes = panels((len(found) + 1) // 2, 2, size=(4.8, 2.3))
    for axis, (ranking, rows) in zip(axes.flat, found, strict=False):
        _panel(axis, ranking, rows)
    for axis in list(axes.flat)[len(found) :]:
        axis.axis("off")
    made.supxlabel("time of one gradient (µs)\nline: Pareto front; blue: advised", size=9)
    made.supylabel("variance of one gradient", size=9)
    return made


def _panel(axis: Axes, ranking: Ranking, rows: Sequence[Row]) -> None:
    least, best = LEAST * max(row["variance"] for row in rows), front(rows)
    times = [row["time_us"] for row in rows]
    limits = min(times) / 1.2, 1.2 * max(times)
    axis.plot(times, [max(row["variance"], least) for row in rows], "o", color=OTHERS, ms=3)
    corners = [(row["time_us"], max(row["variance"], least)) for row in best]
    axis.step(*zip(*corners, (limits[1], corners[-1][1]), strict=True), where="post", color=FRONT)
    named = {row["estimator"] for row in best} | set(ranking.advised)
    ends = {}
    for row in rows:
        if (name := row["estimator"]) in named:
            color = ADVISED if name in ranking.advised else FRONT
            ends[name] = (row["time_us"], max(row["variance"], least), color)
            axis.plot(*ends[name][:2], "o", color=color, ms=5)
    axis.set_title(ranking.title, loc="left")
    axis.set(xscale="log", yscale="log", xlim=limits)
    wide = limits[1] > 5 * limits[0]
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(3))
    axis.xaxis.set_major_formatter("{x:g}")
    for one in (axis.xaxis, axis.yaxis):
        one.set_minor_formatter(NullFormatter())
    label_ends(axis, ends)

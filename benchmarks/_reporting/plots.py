"""The look that all figures share."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import ArrayLike
from PIL import Image

# Okabe and Ito (2008): told apart by readers of any color vision. Yellow is left out: too pale
# for lines on white.
PALETTE = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
MARKERS = "osD^vPX<>"
LINES = ("-", "--", ":", "-.")
CAPTION = "lines: exact; points: measured, ± 3 standard errors; in brackets: evaluations of f"
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "savefig.dpi": 150,
}


def panels(
    rows: int, columns: int, *, size: tuple[float, float] = (3.1, 2.5), **options: Any
) -> tuple[Figure, np.ndarray]:
    """A figure with a grid of axes, [rows, columns], of the given panel size."""
    width, height = size
    figure = Figure(figsize=(width * columns + 0.6, height * rows + 0.9), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


@dataclass(frozen=True)
class Look:
    """The look of one estimator: color, marker and line differ, never color alone."""

    color: str
    marker: str
    linestyle: str

    def curve(self, axis: Axes, x: ArrayLike, y: ArrayLike) -> None:
        """A line of exact values."""
        axis.plot(x, y, color=self.color, linestyle=self.linestyle)

    def run(
        self, axis: Axes, x: ArrayLike, y: ArrayLike, place: int, label: str | None = None
    ) -> None:
        """A training run with a few markers, for each place elsewhere: to tell close runs apart."""
        every = max(1, len(np.asarray(x)) // 5)
        axis.plot(x, y, **asdict(self), markevery=(7 * place % every, every), label=label)

    def points(self, axis: Axes, x: ArrayLike, rows: Sequence[Mapping[str, Any]]) -> None:
        """The measured variances of the rows, with bars of 3 standard errors."""
        variances, errors = (
            np.array([row[name] for row in rows], float) for name in ("variance", "variance_se")
        )
        axis.errorbar(
            x, variances, 3 * errors, color=self.color, marker=self.marker, linestyle="none"
        )


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, by its place."""
    return {
        name: Look(PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)], LINES[i // len(PALETTE)])
        for i, name in enumerate(names)
    }


def legend_below(figure: Figure, drawn: Mapping[str, Look], title: str, *, columns: int) -> None:
    """One legend for all panels, under them, where it covers no data."""
    handles = [Line2D([], [], **asdict(look)) for look in drawn.values()]
    figure.legend(
        handles,
        list(drawn),
        loc="outside lower center",
        ncols=columns,
        title=title,
        handlelength=3,
    )


def plain_ticks(axis: Axis, digits: Sequence[float] = (1, 2, 5)) -> None:
    """Ticks of a logarithmic axis at these digits of each decade, written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def label_ends(axis: Axes, ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Names beside the ends (x, y, color) of curves, at the right of the panel and apart."""
    axis.autoscale_view()
    points = [(x, y) for x, y, _ in ends.values()]
    places = axis.transAxes.inverted().transform(axis.transData.transform(points))
    order, inches = np.argsort(places[:, 1]), axis.get_window_extent().height / axis.figure.dpi
    apart = 0.16 / inches * np.arange(len(order))
    # The mean of two monotone envelopes is monotone, and leaves labels that are apart in place.
    free = places[order, 1] - apart
    up, down = np.maximum.accumulate(free), np.minimum.accumulate(free[::-1])[::-1]
    heights = np.clip((up + down) / 2, 0, max(0.0, 1 - apart[-1])) + apart
    for i, height in zip(order, heights, strict=True):
        color = list(ends.values())[i][2]
        axis.annotate(
            list(ends)[i],
            points[i],
            (1.06, height),
            textcoords="axes fraction",
            color=color,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "relpos": (0, 0.5)},
        )


def png_files(draw: Callable[[], Mapping[str, Figure]]) -> dict[str, bytes]:
    """The contents of PNG files of the figures, by name."""
    files = {}
    with mpl.rc_context(STYLE):
        for name, figure in draw().items():
            with io.BytesIO() as file:
                figure.savefig(file, format="png")
                files[f"{name}.png"] = of_256_colors(file.getvalue())
    return files


def of_256_colors(png: bytes) -> bytes:
    """The picture with 256 colors, in a third of the bytes."""
    with Image.open(io.BytesIO(png)) as image, io.BytesIO() as file:
        few = image.convert("RGB").quantize(
            256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        )
        few.save(file, format="png", optimize=True)
        return file.getvalue()

"""The estimators, and the numbers of samples that each is measured with."""

import scorefn as sf
from benchmarks._models import logistic as model
from benchmarks._models import logistic_training as training
from benchmarks._models.logistic_training import Entry
from benchmarks._suite import Sizes

# Features and a bias, each with a mean and a scale.
FACTORS = 31


ENTRIES = {name: training.ENTRIES[name] for name in ("MovingAverage", "LeaveOneOut", "Pathwise")}


# Coupled: of each factor two points along the mean, and one more along the scale.
ENTRIES["MeasureValued"] = Entry(
    lambda *_: sf.MeasureValued(), evaluations=1 + 3 * FACTORS, posterior=model.readable
)


def cases(sizes: Sizes) -> list[tuple[str, int]]:
    """Each estimator with each number of samples that it is put to."""
    return [
        (name, n)
        for name, entry in ENTRIES.items()
        for n in sizes["samples"]
        if entry.least <= n and entry.evaluations * n <= sizes["most_evaluations"]
    ]

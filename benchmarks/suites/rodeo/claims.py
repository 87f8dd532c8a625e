"""Published claims of RODEO, beside what its suite found."""

from benchmarks._reporting.claims import Finding, less, pairs, table
from benchmarks._suite import Results

NAMES = {
    "leave-one-out": "LeaveOneOut",
    "double control variates": "DoubleCV",
    "DisARM": "DisARM",
    "ARMS": "ARMS",
    "RELAX": "RELAX",
}


def claims(results: Results) -> str:
    """Published claims, and the results: the linear network first, by stage of training."""

    def claim(base: str, *counts: int) -> Finding:
        title = f"{base}, {' and '.join(map(str, counts))} evaluations"
        names = [(f"RODEO ({n})", f"{NAMES[base]} ({n})") for n in counts]
        found = [pair for both in names for pair in pairs(results, *both)]
        return less(f"RODEO has less variance than {title}", "Shi et al. (2022)", found)

    return table(
        [
            claim("leave-one-out", 2, 3),
            claim("double control variates", 2, 3),
            claim("DisARM", 2),
            claim("ARMS", 3),
            claim("RELAX", 3),
        ]
    )

"""A comparison as a file that is always whole."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """As csv; None is an empty field, and so is what is not finite."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_finite(row) for row in rows)
    return file.getvalue()


def to_json(value: Mapping[str, Any]) -> str:
    """As json; numbers that are not finite, which json does not have, become null."""
    return json.dumps(_finite(value), indent=1, allow_nan=False) + "\n"


def write(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file at once: readers, and a killed program, see the old content or the new one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

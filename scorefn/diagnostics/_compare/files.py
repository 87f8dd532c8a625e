"""Tables of numbers in files that are always whole."""

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as csv, in the columns of the first row."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(finite(row) for row in rows)
    return file.getvalue()


def to_json(value: Mapping[str, Any]) -> str:
    """A value as json; numbers that are not finite become null."""
    return json.dumps(finite(value), indent=1, allow_nan=False) + "\n"


def write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file atomically: it holds the old content or the new one.

    A link stays a link, and its file is written; a device or a pipe is written to as it is.
    """
    path, data = Path(path), content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path = path.resolve()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """A value with None in place of every number that is not finite."""
    if isinstance(value, Mapping):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

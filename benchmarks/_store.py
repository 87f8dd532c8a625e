"""Results in json, and the partial results that a rerun resumes from."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorefn.diagnostics._compare.files import finite, write


def check_writable(directory: Path) -> None:
    """Raises ``OSError`` if no file can be written there; makes the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / f".probe.{os.getpid()}.tmp"
    probe.touch()
    probe.unlink()


def to_json(value: Mapping[str, Any]) -> str:
    """A value as json, one line per row; numbers that are not finite become null."""
    entries = [f"{json.dumps(name)}: {_lines(entry)}" for name, entry in finite(value).items()]
    return "{\n " + ",\n ".join(entries) + "\n}\n"


def read(path: Path) -> Any:
    """The value that `to_json` wrote."""
    return json.loads(path.read_text())


class Partial:
    """The steps that an unfinished run has completed, kept in a file after each one.

    Attributes:
        done: what each completed step returned, by its name.
        note: what was found at the start, for the user; empty if nothing was.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = json.loads(json.dumps(settings))
        self.done: dict[str, Any] = {}
        self.note = ""
        if path.exists():
            self._resume()

    def _resume(self) -> None:
        try:
            found = read(self.path)
            settings, done = found["settings"], dict(found["done"])
            if not all(isinstance(payload, dict) for payload in done.values()):
                raise TypeError("a step is no object")
        except (ValueError, TypeError, KeyError) as error:
            self.note = f"{self.path.name} is damaged ({error}); starting again"
            return
        if settings != self.settings:
            self.note = f"{self.path.name} is of a run with other settings; starting again"
            return
        self.done = done
        self.note = f"resuming from {self.path.name}: {len(done)} steps are done already"

    def add(self, name: str, payload: Any) -> None:
        """Keeps one more completed step."""
        # By way of json, so that a resumed run goes on with the very same values.
        self.done[name] = json.loads(json.dumps(payload))
        write(self.path, json.dumps({"settings": self.settings, "done": self.done}))


def _lines(value: Any) -> str:
    if not (isinstance(value, list) and value):
        return json.dumps(value, allow_nan=False)
    return "[\n  " + ",\n  ".join(json.dumps(item, allow_nan=False) for item in value) + "\n ]"

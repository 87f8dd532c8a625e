"""Results in json, and the partial results that a rerun resumes from."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from scorefn.diagnostics._compare.files import finite
from scorefn.diagnostics._compare.files import write as write_file


class NotWrittenError(Exception):
    """Says which file could not be written, and why."""


class InUseError(Exception):
    """Another process writes to the folder."""


def write(path: Path, content: str | bytes) -> None:
    """Writes a file atomically, or raises `NotWrittenError`."""
    try:
        write_file(path, content)
    except OSError as error:
        raise NotWrittenError(f"cannot write {path}: {error.strerror}") from error


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keeps other runs out of a folder; raises `InUseError` while one is in it."""
    try:
        with FileLock(directory / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise InUseError(f"another run is writing to {directory}") from error


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
    return json.loads(path.read_text(encoding="utf-8"))


class Partial:
    """The steps that an unfinished run has completed, kept in a file after each one.

    Attributes:
        done: what each completed step returned, by its name.
        note: what was found at the start, for the user; empty if nothing was.
    """

    def __init__(self, directory: Path, name: str, settings: Mapping[str, Any]) -> None:
        self.settings = json.loads(json.dumps(settings))
        # Runs with other settings have files of their own: none loses what another has done.
        digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()
        self.path = directory / f"{name}.{digest[:8]}.partial.json"
        self.done: dict[str, Any] = {}
        self.note = ""
        if self.path.exists():
            self._resume()

    def _resume(self) -> None:
        try:
            found = read(self.path)
            settings, done = found["settings"], dict(found["done"])
            if settings != self.settings or not all(isinstance(x, dict) for x in done.values()):
                raise ValueError("it is of another run")
        except (ValueError, TypeError, KeyError) as error:
            self.note = f"{self.path.name} is damaged ({error}); starting again"
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

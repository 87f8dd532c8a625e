"""The notebooks: every script runs, with few samples, and what is committed was built from it."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
SPEC = importlib.util.spec_from_file_location("build", FOLDER / "build.py")
build = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(build)
SCRIPTS = build.scripts()

by_name = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def _committed(script):
    return json.loads(script.with_suffix(".ipynb").read_text())


def _outputs(script):
    return [o for cell in _committed(script)["cells"] for o in cell.get("outputs", [])]


def _figures(script):
    return sum("image/png" in output.get("data", {}) for output in _outputs(script))


def _run(script):
    """Cell by cell in one scope, as a kernel does; returns the number of figures drawn."""
    scope = {"__name__": "__main__"}
    for number, cell in enumerate(build.notebook(script).cells):
        if cell.cell_type == "code":
            exec(compile(cell.source, f"{script.name}, cell {number}", "exec"), scope)
    return len(plt.get_fignums())


@pytest.fixture
def quiet(monkeypatch):
    """Figures that are drawn and not shown, a style that ends with the test, few samples."""
    monkeypatch.chdir(FOLDER)
    monkeypatch.setenv("SCOREFN_SMOKE", "1")
    settings = (jax.config.jax_enable_x64, jax.config.jax_debug_nans)
    with mpl.rc_context({"figure.max_open_warning": 0}):
        plt.switch_backend("agg")
        # Only the notebook's own figures are counted.
        plt.close("all")
        monkeypatch.setattr(
            plt, "show", lambda: [f.canvas.draw() for f in map(plt.figure, plt.get_fignums())]
        )
        yield
        plt.close("all")
    assert (jax.config.jax_enable_x64, jax.config.jax_debug_nans) == settings


@pytest.mark.slow
@by_name
@pytest.mark.usefixtures("quiet")
def test_every_cell_runs_without_a_warning_and_every_figure_is_drawn(script):
    assert _run(script) == _figures(script) > 0


@by_name
def test_the_notebook_was_built_from_the_script(script):
    wanted = [(c.cell_type, c.source) for c in build.notebook(script).cells]
    found = [(c["cell_type"], "".join(c["source"])) for c in _committed(script)["cells"]]
    assert found == wanted, f"run python notebooks/build.py {script.name[:2]}"


@by_name
def test_the_notebook_ran_from_top_to_bottom_without_error_or_warning(script):
    cells = [cell for cell in _committed(script)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output["output_type"] != "error" for output in _outputs(script))
    assert all(output.get("name") != "stderr" for output in _outputs(script))


@by_name
def test_the_notebook_has_exercises_with_solutions_and_links_that_lead_somewhere(script):
    text = "\n".join(c.source for c in build.notebook(script).cells if c.cell_type == "markdown")
    assert re.search(r"^## Exercises$.*^## Solutions$", text, re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert "README.md" in links
    assert [link for link in links if not (FOLDER / link).exists()] == []


def test_the_first_cell_installs_the_package_where_it_is_missing(monkeypatch):
    code = [[c.source for c in build.notebook(s).cells if c.cell_type == "code"] for s in SCRIPTS]
    (cell,) = {cells[0] for cells in code}
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: calls.append(command))
    exec(cell, {})
    assert calls == []
    monkeypatch.setitem(sys.modules, "scorefn", None)
    exec(cell, {})
    assert calls == [[sys.executable, "-m", "pip", "install", "-q", "scorefn[notebooks]"]]


def test_the_list_of_notebooks_is_complete():
    listed = re.findall(r"\]\((\d\d_\w+\.ipynb)\)", (FOLDER / "README.md").read_text())
    assert listed == [script.with_suffix(".ipynb").name for script in SCRIPTS]
    assert len(SCRIPTS) == len({script.name[:2] for script in SCRIPTS})


def test_a_script_that_fails_stops_the_build_and_leaves_its_notebook(monkeypatch, tmp_path, capsys):
    good, bad = tmp_path / "01_good.py", tmp_path / "02_bad.py"
    good.write_text("# %%\nprint(1 + 1)\n")
    bad.write_text("# %%\n1 / 0\n")
    bad.with_suffix(".ipynb").write_text("as it was")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr("sys.argv", ["build.py"])
    assert build.main() == 1
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert bad.with_suffix(".ipynb").read_text() == "as it was"
    assert _committed(good)["cells"][0]["outputs"][0]["text"] in ("2\n", ["2\n"])
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".ipynb", ".ipynb", ".py", ".py"]


def test_an_unknown_number_says_which_there_are(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["build.py", "99"])
    with pytest.raises(SystemExit):
        build.main()
    assert "no notebook has the number 99; there are 01" in capsys.readouterr().err

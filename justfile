# The commands of this project. Where just is not installed, copy the line.
python := ".venv/bin/python"

# Lists the commands.
default:
    @{{just_executable()}} --list

# Makes a virtual environment with everything that tests, notebooks and benchmarks need.
install:
    python3 -m venv .venv
    {{python}} -m pip install -e ".[dev]"

# Runs all tests, as CI does.
test *options:
    {{python}} -m pytest -n auto {{options}}

# Runs all tests but those marked slow.
test-fast *options:
    {{python}} -m pytest -n auto -m "not slow" {{options}}

# Checks style and format.
lint:
    {{python}} -m ruff check
    {{python}} -m ruff format --check

# Checks types.
types:
    {{python}} -m mypy

# Runs benchmark suites by name; without a name, the one of the README.
benchmark *suites:
    {{python}} -m benchmarks {{suites}}

# Writes the generated parts of the documentation.
docs:
    {{python}} docs/build.py

# Builds the site in build/site and checks its links and its layout.
site:
    {{python}} docs/website.py

# Prints the figures of the package's structure.
house *packages:
    {{python}} tests/support/house.py {{packages}}

# Builds the packages in dist/, checks them and tests the installed wheel.
package *options:
    bash .ci/package {{options}}

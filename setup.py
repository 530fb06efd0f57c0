"""For tools that look for a setup.py; what the package is stands in pyproject.toml."""
from __future__ import annotations

import sys

# The first version that reads all of pyproject.toml.
NEEDED = 77

HOW_TO_TEST = """\
setup.py runs no tests. Run them with one of
    python3 tests/run.py          on a machine that has nothing but Python
    pip install -e ".[dev]"       and then: pytest"""

if "test" in sys.argv[1:]:
    sys.exit(HOW_TO_TEST)

import setuptools  # noqa: E402  (not needed to say that)

if int(setuptools.__version__.partition(".")[0]) < NEEDED:
    sys.exit(f"setup.py needs setuptools {NEEDED} or newer, and this is {setuptools.__version__}; "
             f"'pip install .' fetches it for the build alone")
setuptools.setup()

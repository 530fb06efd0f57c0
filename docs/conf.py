"""How Sphinx builds this documentation: ``sphinx-build -W -n docs docs/_build``."""
from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The checkout that these pages belong to, installed or not.
sys.path.insert(0, str(ROOT))

project = "app-net"
author = "app-net developers"
copyright = author
release = re.search(r'^__version__ = "(.+)"$', (ROOT / "net/__init__.py").read_text(), re.M)[1]
version = release.rpartition(".")[0]

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Call a function here or on another peer: same name, same result.",
    "page_width": "60em",
}
html_show_copyright = False
pygments_style = "sphinx"

autodoc_member_order = "bysource"
# Signatures of several lines are easier to read than those of two hundred columns.
maximum_signature_line_length = 80

# A reference to a name of ours that does not exist is an error. Names of the standard library
# are not looked up: the build needs no network. (Type variables have one letter.)
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!net\.).*"), (r"py:class", r"net\.[\w.]+\.[A-Z](_co)?")]

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

extensions = ["sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"app-net {version}"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5f99", "color-brand-content": "#1f5f99"},
    "dark_css_variables": {"color-brand-primary": "#7cb5ec", "color-brand-content": "#7cb5ec"},
}
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_show_copyright = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "monokai"

# The copy button takes what one types: no prompts and no output, and whole files as they are.
copybutton_prompt_text = r"\$ |>>> |\.\.\. ?"
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
# Signatures of several lines are easier to read than those of two hundred columns.
maximum_signature_line_length = 80

# A reference to a name of ours that does not exist is an error. Names of the standard library
# are not looked up: the build needs no network. (Type variables have one letter.)
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!net\.).*"), (r"py:(class|obj)", r"net\.[\w.]+\.([A-Z](_co)?|_\w+)")]

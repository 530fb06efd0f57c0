"""``python3 -m net COMMAND``."""
from __future__ import annotations

import sys

from .cli import program

if __name__ == "__main__":
    sys.exit(program())

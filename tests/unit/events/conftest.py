"""What the tests of events share."""
from __future__ import annotations

import pytest

from net.events import publisher_connection, publishing, subscribing, workers


@pytest.fixture(autouse=True)
def lines_of_their_own() -> None:
    """Let no test have its lines in the log left out because of those of an earlier one."""
    for module in (publisher_connection, publishing, subscribing, workers):
        module.note._begin()

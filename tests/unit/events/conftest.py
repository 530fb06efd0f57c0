"""What the tests of events share."""
from __future__ import annotations

import pytest

from net.events import publisher_connection, publishing, subscribing, workers


@pytest.fixture(autouse=True)
def lines_of_their_own() -> None:
    """Let no line of a test's be left out of the log because of the lines of an earlier test."""
    for module in (publisher_connection, publishing, subscribing, workers):
        module.note._begin()

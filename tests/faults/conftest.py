"""Fixtures of the fault kit."""
from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest

from net.settings import settings
from service import Service


@pytest.fixture
def service() -> Iterator[Service]:
    """A server in this process with functions that count how often they run."""
    made = Service()
    yield made
    made.close()


@pytest.fixture
def configure() -> Iterator[Callable[..., None]]:
    """Set settings for one test: ``configure(max_connections=4)``."""

    def set_all(**values: Any) -> None:
        for name, value in values.items():
            settings.set(name, value)

    yield set_all
    settings.reset()

"""What the unit tests share: settings that are put back, and how hypothesis runs."""
from __future__ import annotations

import asyncio
import gc
import os
import sys
from typing import Iterator

import hypothesis
import pytest

from loops import running_asyncio
from net.settings import Settings, settings

# Machines differ in speed, and no test may depend on it; in CI a run says the same each time.
# PyPy takes five times as long to think up an example.
hypothesis.settings.register_profile(
    "unit", max_examples=30 if sys.implementation.name == "cpython" else 10, deadline=None,
    derandomize="CI" in os.environ, print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("unit")


def pytest_collection_finish() -> None:
    """Let hypothesis look at all characters now. It takes seconds the first time in a clone, which
    would count towards the limit of the first test that needs that."""
    hypothesis.strategies.text().validate()


@pytest.fixture
def kept_settings() -> Iterator[Settings]:
    """The settings, which a test may change as it likes."""
    before = dict(vars(settings))
    yield settings
    vars(settings).clear()
    vars(settings).update(before)


@pytest.fixture
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that have read nothing yet, in an environment without any."""
    for name in [name for name in os.environ if name.startswith("NET_")]:
        monkeypatch.delenv(name)
    return Settings()


@pytest.fixture
def only_what_is_new() -> None:
    """Let the collections of garbage in a test look at what it makes: there are hundreds of
    thousands of objects besides."""
    if hasattr(gc, "freeze"):  # PyPy has none
        gc.freeze()


@pytest.fixture
def asyncio_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread."""
    with running_asyncio() as loop:
        yield loop

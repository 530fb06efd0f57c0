"""Fixtures of the fault kit."""
from __future__ import annotations

import functools
import hashlib
from types import SimpleNamespace
from typing import Any, Callable, Iterator

import pytest

from net.settings import settings
from net.link import authority
from service import Service


@pytest.fixture(scope="session", autouse=True)
def derived_once() -> Iterator[None]:
    """Derive the key of each secret once in this process; it takes a tenth of a second."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(authority, "hashlib", SimpleNamespace(
            pbkdf2_hmac=functools.lru_cache(maxsize=None)(hashlib.pbkdf2_hmac)))
        yield


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

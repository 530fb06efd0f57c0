"""The functions and flags that every peer has."""
from __future__ import annotations

from .flags import invalid_connection, null_response
from .handlers import connections, describe, info, null, pass_through, subscription_handler

__all__ = ["connections", "describe", "info", "invalid_connection", "null", "null_response",
           "pass_through", "subscription_handler"]

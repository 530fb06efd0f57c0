"""The systems that are compared, each in an adapter of a few lines."""
from __future__ import annotations

from . import app_net, grpc, pyro, rpyc, sockets, standard, zeromq, zerorpc
from .base import Calls, System

#: By name, in the order in which they are measured and shown.
SYSTEMS: dict[str, System] = {
    system.name: system
    for module in (app_net, sockets, standard, zeromq, rpyc, pyro, zerorpc, grpc)
    for system in module.SYSTEMS
}

__all__ = ["SYSTEMS", "Calls", "System"]

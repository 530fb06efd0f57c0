"""A back end for joblib, so that code written for ``joblib.Parallel`` runs on peers."""
from __future__ import annotations

from concurrent.futures import Future
from itertools import count
from typing import Any, Callable, List, Optional

from . import discovery
from .calls.many import Executor


def register_joblib() -> None:
    """Register a back end ``"net"`` with joblib, which runs connected functions on peers.

    Then ``joblib.parallel_config("net")`` or ``joblib.Parallel(backend="net")`` selects it. Both
    take what :class:`net.Executor` takes: ``peers``, ``groups``, ``repeatable`` and ``at_a_time``.

    :raises ImportError: joblib is not installed; it has to be 1.3 or later.
    """
    from joblib.parallel import ParallelBackendBase, register_parallel_backend

    register_parallel_backend("net", type("NetBackend", (_OnPeers, ParallelBackendBase), {}))


class _OnPeers:
    """Each task goes to the next peer that is free. :func:`register_joblib` adds the base class
    that joblib expects."""

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, nesting_level: Optional[int] = None, **terms: Any) -> None:
        super().__init__(nesting_level=nesting_level)  # type: ignore[call-arg]
        if terms.get("peers") is not None:
            terms["peers"] = tuple(terms["peers"])
        self._terms = terms
        self._executor = Executor(**terms)

    def effective_n_jobs(self, n_jobs: int) -> int:
        # Joblib reads ahead by this number. How many tasks run depends on how many peers are free.
        if n_jobs > 0:
            return n_jobs
        there = self._terms.get("peers")
        if there is None:
            there = discovery.peers(groups=self._terms.get("groups"))
        return max(1, len(there)) * int(self._terms.get("at_a_time", 1))

    def submit(self, func: Any, callback: Callable[[Any], Any]) -> List[Future[Any]]:
        futures = [self._start(*task) for task in func.items]
        ended = count(1)
        for future in futures:
            future.add_done_callback(
                lambda _: callback(futures) if next(ended) == len(futures) else None)
        return futures

    apply_async = submit  # its name until joblib 1.5

    def _start(self, function: Any, args: Any, kwargs: Any) -> Future[Any]:
        try:
            return self._executor.submit(function, *args, **kwargs)
        except (TypeError, RuntimeError) as problem:
            # Raised in the thread that reports a result, it would be lost.
            failed: Future[Any] = Future()
            failed.set_exception(problem)
            return failed

    def retrieve_result_callback(self, out: List[Future[Any]]) -> List[Any]:
        return [future.result() for future in out]

    def abort_everything(self, ensure_ready: bool = True) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._executor = Executor(**self._terms)

    terminate = abort_everything

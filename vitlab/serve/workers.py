"""Processes that do what may take too long or too much, and may die without harm.

Each kind of work has a pool of its own. pebble starts the processes, hands out the calls, and
kills and replaces a process that takes too long (W05) or dies (W11).
"""

import asyncio
import functools
import os
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

import pebble
from pebble import ProcessExpired, ProcessPool

T = TypeVar("T")

pebble.CONSTS.term_timeout = 0.1  # a worker holds nothing that it would have to put in order

START_SECONDS = 300
"""For a process to start, before a call's own time begins; importing torch may take long."""


class Lost(Exception):
    """A worker died or was too slow, so there is no answer."""


class Workers:
    """A pool of processes for one kind of work.

    Args:
        count: processes.
        seconds: for one call, once it has begun.
        prepare: called first in each process, with `arguments`.
    """

    def __init__(
        self,
        count: int,
        seconds: float,
        prepare: Callable[..., None] | None = None,
        *arguments: Any,
    ):
        self._seconds = seconds
        self._new = functools.partial(
            ProcessPool, count, initializer=start, initargs=(prepare, arguments),
            context=get_context("spawn"),
        )  # fmt: skip
        self._pool = self._new()
        self._free = asyncio.Semaphore(count)

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """The result of a function in a free process; raises what it raises, or Lost.

        Whoever is cancelled while it waits for a process leaves no trace. A call that has begun
        goes on, because another process takes longer to start (W08).
        """
        await self._free.acquire()
        return await asyncio.shield(asyncio.create_task(self._call(function, arguments)))

    async def _call(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        try:
            async with asyncio.timeout(self._seconds + START_SECONDS):
                try:
                    return await self._scheduled(function, arguments)
                except BrokenProcessPool:  # a process died while it had nothing to do
                    return await self._scheduled(function, arguments)
        except (TimeoutError, ProcessExpired, BrokenProcessPool) as error:
            raise Lost(function.__name__) from error
        finally:
            self._free.release()

    async def _scheduled(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        if not self._pool.active:
            broken, self._pool = self._pool, self._new()
            await asyncio.to_thread(broken.join)
        future = self._pool.schedule(function, arguments, timeout=self._seconds)
        return await asyncio.wrap_future(future)

    async def stop(self) -> None:
        """Kill all processes."""
        self._pool.stop()
        await asyncio.to_thread(self._pool.join)


def start(prepare: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    """Prepare a worker. What libraries complain of strangers' pictures fills no terminal."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if prepare is not None:
        prepare(*arguments)

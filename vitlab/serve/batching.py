"""Pictures that wait at the same time enter the model together."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

Compute = Callable[[np.ndarray], np.ndarray]
"""What maps pixels uint8 (N, H, W, C) to probabilities (N, K)."""


class Waiting(NamedTuple):
    """One picture and who waits for it."""

    pixels: np.ndarray
    answer: asyncio.Future[np.ndarray]


class Batcher:
    """A queue and one worker. A lone picture is not made to wait for company.

    Args:
        compute: called in a thread, one call at a time.
        most: pictures of one call.
    """

    def __init__(self, compute: Compute, most: int):
        self._compute, self._most = compute, most
        self._queue: deque[Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "vitlab-model")

    async def ask(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (H, W, C) to probabilities (K,). Whoever is cancelled leaves the queue."""
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._queue.append(Waiting(pixels, answer))
        self._arrived.set()
        return await answer

    def stop(self) -> None:
        """Compute nothing new."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def work(self) -> None:
        """Answer what is in the queue, forever."""
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while batch := self._next():
                images = np.stack([one.pixels for one in batch])
                try:
                    rows = await loop.run_in_executor(self._thread, self._compute, images)
                except Exception as error:
                    self._settle(batch, [error] * len(batch))
                else:
                    self._settle(batch, list(rows))

    def _next(self) -> list[Waiting]:
        batch: list[Waiting] = []
        while self._queue and len(batch) < self._most:
            one = self._queue.popleft()
            if not one.answer.done():  # else nobody waits any more
                batch.append(one)
        return batch

    @staticmethod
    def _settle(batch: list[Waiting], outcomes: list[np.ndarray | Exception]) -> None:
        for one, outcome in zip(batch, outcomes, strict=True):
            if one.answer.done():
                continue
            if isinstance(outcome, Exception):
                one.answer.set_exception(outcome)
            else:
                one.answer.set_result(outcome)

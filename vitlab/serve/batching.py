"""Pictures that wait at the same time enter the model together."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from vitlab.inference import Prediction

Compute = Callable[[np.ndarray], "list[Prediction]"]
"""What maps pixels uint8 (N, H, W, C) to a prediction each."""


class Waiting(NamedTuple):
    """One picture and who waits for it."""

    pixels: np.ndarray
    answer: "asyncio.Future[Prediction]"


class Batcher:
    """A queue in front of a model. A lone picture is not made to wait for company.

    Args:
        compute: called in `thread`, one call at a time.
        most: pictures of one call.
    """

    def __init__(self, compute: Compute, most: int, thread: Executor):
        self._compute, self._most, self._thread = compute, most, thread
        self._queue: asyncio.Queue[Waiting] = asyncio.Queue()

    async def ask(self, pixels: np.ndarray) -> "Prediction":
        """Pixels (H, W, C) to a prediction. Whoever is cancelled is not computed."""
        answer: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(Waiting(pixels, answer))
        return await answer

    async def work(self) -> None:
        """Answer what is in the queue, forever."""
        loop = asyncio.get_running_loop()
        while True:
            taken = [await self._queue.get()]
            while len(taken) < self._most and not self._queue.empty():
                taken.append(self._queue.get_nowait())
            batch = [one for one in taken if not one.answer.done()]  # others have gone (W08)
            if not batch:
                continue
            images = np.stack([one.pixels for one in batch])
            try:
                rows = await loop.run_in_executor(self._thread, self._compute, images)
            except Exception as error:
                for one in batch:
                    if not one.answer.done():
                        one.answer.set_exception(error)
            else:
                for one, row in zip(batch, rows, strict=True):
                    if not one.answer.done():
                        one.answer.set_result(row)

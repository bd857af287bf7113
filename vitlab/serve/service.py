"""What the service holds and does, whoever asks: a model, workers that decode and that explain.

starting -> ready -> draining

A picture's bytes come in, an answer or a map goes out. How many may be inside at once is decided
here, and so is what becomes of them when the service stops.
"""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vitlab.errors import DataError, VitlabError
from vitlab.serve import decoding, explaining
from vitlab.serve.batching import Batcher
from vitlab.serve.limits import TYPES, Limits
from vitlab.serve.workers import Lost, Workers

if TYPE_CHECKING:
    from vitlab.classifier import Classifier
    from vitlab.run import Run

State = Literal["starting", "ready", "draining"]

EXPORT_SECONDS = 600
"""For a run's first export, which takes up to a minute on a machine that is not busy."""


class Refusal(Exception):
    """A request that gets no answer: the HTTP status, what to say, and when to come back."""

    def __init__(self, status: int, message: str, retry: int | None = None):
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {} if retry is None else {"retry-after": str(retry)}


class Service:
    """One model and what is asked of it.

    Args:
        open_model: makes the classifier; called in a thread, with `export`, which maps a run to
            the folder of its ONNX export.
        limits: how much is taken.
    """

    def __init__(self, open_model: Callable[..., "Classifier"], limits: Limits):
        self.limits = limits
        self.state: State = "starting"
        self.requests = 0
        """Pictures inside."""
        self.explanations = 0
        """Of these, those that ask for a map."""
        self.held = 0
        """Bytes of picture files inside."""
        self.methods: list[dict[str, Any]] = []
        """Ways to make a map that this model has, those that passed their own test first."""
        self._open = open_model
        self._thread = ThreadPoolExecutor(1, "vitlab-model")
        """Where the model is loaded and computes; nothing waits for it in the end."""
        self._classifier: Classifier | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._decoders = Workers(
            limits.decoders, limits.decode_seconds, decoding.limit_memory, limits.decoder_memory
        )
        self._explainer: Workers | None = None

    @property
    def classifier(self) -> "Classifier":
        """The model; Refusal while it is being loaded."""
        if self._classifier is None:
            raise Refusal(503, "the model is being loaded", self.limits.retry_seconds)
        return self._classifier

    async def start(self) -> None:
        """Load the model, start the decoders and let a picture pass through all of it."""
        loop = asyncio.get_running_loop()

        def export(run: "Run") -> Path:
            return asyncio.run_coroutine_threadsafe(self._export(run), loop).result()

        def load() -> "Classifier":
            classifier = self._open(export=export)
            shape = (*classifier.preprocessing.image_size, classifier.preprocessing.channels)
            classifier.predict(np.zeros((self.limits.batch, *shape), np.uint8))
            return classifier

        classifier = await loop.run_in_executor(self._thread, load)
        form = classifier.preprocessing
        self._form = decoding.Form(
            form.image_size, form.channels, form.fit, form.grey_range, self.limits.pixels
        )
        self._batcher = Batcher(classifier.predict, self.limits.batch, self._thread)
        self._tasks.append(asyncio.create_task(self._batcher.work()))
        try:
            pixels = await self._decoders.call(decoding.decode_picture, _example(), self._form)
        except Lost as error:
            raise VitlabError(
                "the processes that decode pictures do not start: is there memory for them?"
            ) from error
        await self._batcher.ask(pixels)
        self._classifier = classifier
        if classifier.run is not None:
            self._explainer = Workers(
                1, self.limits.explain_seconds, explaining.load_model, str(classifier.run.path)
            )
            # Answers do not wait for the process that draws maps.
            self._tasks.append(asyncio.create_task(self._find_methods(classifier.run)))
        if self.state == "starting":
            self.state = "ready"

    async def stop(self) -> None:
        """End what was started. The thread may still be computing."""
        self.state = "draining"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for workers in (self._decoders, self._explainer):
            if workers is not None:
                await workers.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)

    # Who may come in

    def crowded(self, what: str = "pictures") -> Refusal:
        """The answer to one picture too many."""
        words = f"too many {what} at once: try again in a moment"
        return Refusal(429, words, self.limits.retry_seconds)

    @contextlib.contextmanager
    def inside(self, *, explains: bool) -> Iterator[None]:
        """Be counted as a picture inside; Refusal if there is no place."""
        if self.state != "ready":
            why = "being loaded" if self.state == "starting" else "being stopped"
            raise Refusal(503, f"the service is {why}", self.limits.retry_seconds)
        if self.requests >= self.limits.requests:
            raise self.crowded()
        if explains and self.explanations >= self.limits.explanations:
            raise self.crowded("maps")
        self.requests += 1
        self.explanations += explains
        try:
            yield
        finally:
            self.requests -= 1
            self.explanations -= explains

    def hold(self, size: int) -> None:
        """Count more bytes of picture files as held; Refusal if they are too many together."""
        if self.held + size > self.limits.uploads:
            raise self.crowded("large pictures")
        self.held += size

    # What is done

    async def predict(self, file: bytes, top: int, coverage: int | None = None) -> dict[str, Any]:
        """A picture's file to what `Classifier.answer` says of it."""
        async with self._within(self.limits.answer_seconds):
            prediction = await self._batcher.ask(await self._decode(file))
        try:
            return self.classifier.answer(prediction, top, coverage)
        except VitlabError as error:
            raise Refusal(422, str(error)) from None

    async def explain(self, file: bytes, method: str, name: str | None) -> dict[str, Any]:
        """A picture's file to a map of what speaks for a class, by default for the likeliest."""
        classifier = self.classifier
        if classifier.run is None or self._explainer is None:
            raise Refusal(404, "there are no maps here: they need the run itself")
        names = [one["name"] for one in self.methods]
        if names and method not in names:
            raise Refusal(422, f"this model has no such method: {', '.join(names)}")
        if name is not None and name not in classifier.class_names:
            raise Refusal(422, "this model has no such class: GET /api/model lists them")
        async with self._within(self.limits.explain_seconds):
            pixels = await self._decode(file)
            answer = classifier.answer(await self._batcher.ask(pixels))
            name = name or answer["top"][0]["class"]
            label = classifier.class_names.index(name)
            try:
                heat = await self._explainer.call(explaining.draw_map, method, pixels, label)
            except VitlabError as error:
                raise Refusal(422, str(error)) from None
            except Lost:
                raise Refusal(503, "the map took too long", self.limits.retry_seconds) from None
        return {
            "method": method,
            "class": name,
            "map": np.round(heat.astype(float), 4).tolist(),
            **answer,
        }

    def describe(self) -> dict[str, Any]:
        """The model as a page or a program needs to know it."""
        classifier, limits = self.classifier, self.limits
        form = classifier.preprocessing
        return {
            "name": classifier.name,
            "classes": list(classifier.class_names),
            "image_size": list(form.image_size),
            "channels": form.channels,
            "fit": form.fit,
            "engine": classifier.engine,
            "calibrated": classifier.calibrated,
            "has_sets": bool(classifier.card.get("conformal_thresholds")),
            "temperature": classifier.temperature,
            "methods": self.methods,
            "explains": self._explainer is not None,
            "notes": list(classifier.notes),
            "card": classifier.card,
            "limits": {"bytes": limits.upload, "pixels": limits.pixels, "types": list(TYPES)},
        }

    async def _export(self, run: "Run") -> Path:
        """The folder of a run's ONNX export, written by a worker that ends with the service."""
        from vitlab.export import discard_unfinished, exported

        if self.state != "starting":
            raise asyncio.CancelledError  # the thread asks too late
        task = asyncio.current_task()
        assert task
        self._tasks.append(task)
        workers = Workers(1, EXPORT_SECONDS)
        try:
            return await workers.call(exported, run)
        except Lost:
            raise VitlabError(
                f"its export ended early: `vitlab export {run.path} --to onnx` tells why"
            ) from None
        finally:
            await workers.stop()
            discard_unfinished(run)

    async def _find_methods(self, run: "Run") -> None:
        assert self._explainer is not None
        try:
            names = await self._explainer.call(explaining.methods)
        except (Lost, VitlabError):
            explainer, self._explainer = self._explainer, None  # answers do without
            await explainer.stop()
            return
        tested = explaining.faithful_methods(run, self.classifier.card["checkpoint_sha256"])
        order = [*(name for name in tested if name in names), *names]
        self.methods = [
            {"name": name, "shows": explaining.METHODS[name], "faithful": tested.get(name)}
            for name in dict.fromkeys(order)
        ]

    async def _decode(self, file: bytes) -> np.ndarray:
        try:
            return await self._decoders.call(decoding.decode_picture, file, self._form)
        except DataError as error:
            raise Refusal(422, f"cannot read this picture: {error}") from None
        except Lost:
            raise Refusal(422, "cannot read this picture: it takes too much to decode") from None

    @contextlib.asynccontextmanager
    async def _within(self, seconds: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise Refusal(503, "it took too long", self.limits.retry_seconds) from None


def _example() -> bytes:
    """A small picture, to be the first."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(file, "PNG")
    return file.getvalue()

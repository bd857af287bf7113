"""What the service holds and does, whoever asks: a model, processes to decode and to explain.

starting -> ready -> draining

A picture's bytes come in, an answer or a map goes out. How many may be inside at once is decided
here, and so is what becomes of them when the service stops.
"""

import asyncio
import contextlib
import io
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from vitlab.errors import VitlabError
from vitlab.serve.batching import Batcher
from vitlab.serve.child import Child, Lost, Pool, Refused
from vitlab.serve.explaining import METHODS
from vitlab.serve.limits import TYPES, Limits

if TYPE_CHECKING:
    from vitlab.classifier import Classifier
    from vitlab.run import Run

T = TypeVar("T")

State = Literal["starting", "ready", "draining"]

EXPORT_SECONDS = 600
"""For a run's first export, which takes up to a minute on a machine that is not busy."""


class Refusal(Exception):
    """A request that gets no answer: the HTTP status, what to say, and when to come back."""

    def __init__(self, status: int, message: str, retry: int | None = None):
        super().__init__(message)
        self.status, self.message, self.retry = status, message, retry


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
        self.methods: list[str] = []
        """Words of METHODS that this model has."""
        self._open = open_model
        self._classifier: Classifier | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._pools: list[Pool] = []
        self._batcher: Batcher | None = None
        self._explainers: Pool | None = None

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

        classifier = await aside(lambda: self._open(export=export))
        form, limits = classifier.preprocessing, self.limits
        height, width = form.image_size
        words = [
            str(height), str(width), str(form.channels), form.fit, str(limits.pixels),
            str(limits.decoder_memory), str(max(1, round(limits.decode_seconds))),
            *map(str, form.grey_range or (0, 65535)),
        ]  # fmt: skip
        self._decoders = Pool(
            "vitlab.serve.decoding", words, count=limits.decoders, seconds=limits.decode_seconds
        )
        self._pools.append(self._decoders)
        self._batcher = Batcher(classifier.probabilities, limits.batch)
        try:
            await self._decoders.start()
        except Lost as error:
            raise VitlabError(
                "the processes that decode pictures do not start: is there memory for them?"
            ) from error
        self._tasks.append(asyncio.create_task(self._batcher.work()))
        grey = np.zeros((limits.batch, height, width, form.channels), np.uint8)
        await aside(lambda: classifier.probabilities(grey))
        if classifier.run is not None:
            self._explainers = Pool(
                "vitlab.serve.explaining",
                [str(classifier.run.path)],
                count=1,
                seconds=limits.explain_seconds,
            )
            self._pools.append(self._explainers)
        self._classifier = classifier
        await self._probabilities(await self._decode(_example()))
        if self.state == "starting":
            self.state = "ready"
        if self._explainers is not None:
            # Answers do not wait for the process that draws maps.
            self._tasks.append(asyncio.create_task(self._meet_explainer(self._explainers)))

    async def stop(self) -> None:
        """End what was started. A thread may still be computing."""
        self.state = "draining"
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(pool.stop() for pool in self._pools))
        if self._batcher is not None:
            self._batcher.stop()

    async def drain(self) -> None:
        """Take nothing new and wait until what is inside is answered, or for too long."""
        self.state = "draining"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.drain_seconds):
                while self.requests:
                    await asyncio.sleep(0.02)

    # Who may come in

    @contextlib.contextmanager
    def inside(self, *, explains: bool) -> Iterator[None]:
        """Be counted as a picture inside; Refusal if there is no place."""
        retry = self.limits.retry_seconds
        if self.state != "ready":
            why = "being loaded" if self.state == "starting" else "being stopped"
            raise Refusal(503, f"the service is {why}", retry)
        if self.requests >= self.limits.requests:
            raise Refusal(429, "too many pictures at once: try again in a moment", retry)
        if explains and self.explanations >= self.limits.explanations:
            raise Refusal(429, "too many maps at once: try again in a moment", retry)
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
            raise Refusal(
                429, "too many large pictures at once: try again in a moment",
                self.limits.retry_seconds,
            )  # fmt: skip
        self.held += size

    # What is done

    async def predict(self, file: bytes, top: int) -> dict[str, Any]:
        """A picture's file to the likeliest classes and how sure the model is."""
        async with self._within(self.limits.answer_seconds):
            rows = await self._probabilities(await self._decode(file))
        return self.classifier.answer(rows, top)

    async def explain(self, file: bytes, method: str, name: str | None) -> dict[str, Any]:
        """A picture's file to a map of what speaks for a class, by default for the likeliest."""
        classifier = self.classifier
        self._check(method, name)
        async with self._within(self.limits.explain_seconds):
            pixels = await self._decode(file)
            answer = classifier.answer(await self._probabilities(pixels))
            name = name or answer["top"][0]["class"]
            head = {
                "method": method, "class": classifier.class_names.index(name),
                "shape": pixels.shape,
            }  # fmt: skip
            assert self._explainers is not None
            shape, values = await self._asked(self._explainers, head, pixels.tobytes())
        heat = np.frombuffer(values, np.float32).reshape(shape["rows"], shape["columns"])
        return {
            "method": method,
            "class": name,
            "map": [[round(float(value), 4) for value in row] for row in heat],
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
            "temperature": classifier.temperature,
            "methods": [{"name": word, "shows": METHODS[word]} for word in self.methods],
            "explains": self._explainers is not None,
            "notes": list(classifier.notes),
            "card": classifier.card,
            "limits": {"bytes": limits.upload, "pixels": limits.pixels, "types": list(TYPES)},
        }

    def _check(self, method: str, name: str | None) -> None:
        if self._explainers is None:
            raise Refusal(404, "there are no maps here: they need the run itself")
        if self.methods and method not in self.methods:
            raise Refusal(422, f"this model has no such method: {', '.join(self.methods)}")
        if name is not None and name not in self.classifier.class_names:
            raise Refusal(422, "this model has no such class: GET /api/model lists them")

    async def _export(self, run: "Run") -> Path:
        """The folder of a run's ONNX export, written by a process that ends with the service."""
        from vitlab.export import discard_unfinished

        if self.state != "starting":
            raise asyncio.CancelledError  # the thread asks too late
        task = asyncio.current_task()
        assert task
        self._tasks.append(task)
        child = Child("vitlab.serve.exporting", [str(run.path)], EXPORT_SECONDS)
        try:
            head, _ = await child.ask({}, b"")
        except Refused as refused:
            raise VitlabError(str(refused)) from None
        except Lost:
            raise VitlabError(
                f"its export ended early: `vitlab export {run.path} --to onnx` tells why"
            ) from None
        finally:
            await child.stop()
            discard_unfinished(run)
        return Path(head["folder"])

    async def _meet_explainer(self, explainers: Pool) -> None:
        try:
            self.methods = (await explainers.start())["methods"]
        except Lost:
            self._explainers = None  # answers do without

    async def _decode(self, file: bytes) -> np.ndarray:
        try:
            _, pixels = await self._decoders.ask({}, file)
        except Refused as refused:
            raise Refusal(422, f"cannot read this picture: {refused}") from None
        except Lost:
            raise Refusal(422, "cannot read this picture: it takes too much to decode") from None
        form = self.classifier.preprocessing
        shape = (*form.image_size, form.channels)
        return np.frombuffer(pixels, np.uint8).reshape(shape)

    async def _probabilities(self, pixels: np.ndarray) -> np.ndarray:
        assert self._batcher is not None
        return await self._batcher.ask(pixels)

    async def _asked(self, pool: Pool, head: dict[str, Any], body: bytes) -> tuple[Any, bytes]:
        try:
            return await pool.ask(head, body)
        except Refused as refused:
            raise Refusal(422, str(refused)) from None
        except Lost:
            raise Refusal(503, "the map took too long", self.limits.retry_seconds) from None

    @contextlib.asynccontextmanager
    async def _within(self, seconds: float):
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError:
            raise Refusal(503, "it took too long", self.limits.retry_seconds) from None


async def aside(work: Callable[[], T]) -> T:
    """The result of something that takes long, done in a thread that nobody has to wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def tell(settle: Callable[..., None], outcome: Any) -> None:
        if not done.done():
            settle(outcome)

    def run() -> None:
        try:
            outcome = done.set_result, work()
        except Exception as error:
            outcome = done.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, *outcome)

    threading.Thread(target=run, daemon=True).start()
    return await done


def _example() -> bytes:
    """A small picture, to be the first."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(file, "PNG")
    return file.getvalue()

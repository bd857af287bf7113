"""Child processes that answer one message at a time, and may die without harm.

A message is a JSON object and some bytes. The child says hello once it is ready; after that every
message gets one reply. A child that is too slow, or dies, is replaced.
"""

import asyncio
import contextlib
import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import vitlab
from vitlab.errors import VitlabError

Message = tuple[dict[str, Any], bytes]

FRAME = struct.Struct("!II")
"""Lengths of the JSON and of the bytes, which follow in this order."""

LONGEST = 64_000_000
"""Bytes of the longest reply that is believed."""

START_SECONDS = 120
"""From a child's start to its hello; importing torch from a slow disk takes long."""


class Lost(Exception):
    """A child died or was too slow, so there is no answer."""


class Refused(Exception):
    """A child read the message and says what is wrong with it."""


def pack(head: dict[str, Any], body: bytes = b"") -> bytes:
    """A message as the bytes that travel."""
    text = json.dumps(head).encode()
    return FRAME.pack(len(text), len(body)) + text + body


# In the parent


class Child:
    """One child process, started when it is first asked."""

    def __init__(self, module: str, words: list[str], seconds: float):
        self.module, self.words, self.seconds = module, words, seconds
        self.hello: dict[str, Any] = {}
        """What the child said of itself."""
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process unless it is alive; Lost if it does not say hello."""
        if self._process is not None and self._process.returncode is None:
            return
        # Of the parent's environment nothing is needed but where Python and its packages are.
        root = str(Path(vitlab.__file__).parents[1])
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.module,
            *self.words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**kept, **alone, "PYTHONPATH": os.pathsep.join([root, *filter(None, sys.path)])},
            start_new_session=True,  # Ctrl-C is for the parent, which finishes first
        )
        self.hello, _ = await self._within(START_SECONDS, self._read())

    async def ask(self, head: dict[str, Any], body: bytes) -> Message:
        """Send a message and wait for the reply; Refused is the child's no, Lost its end."""
        await self.start()
        head, body = await self._within(self.seconds, self._exchange(pack(head, body)))
        if "refused" in head:
            raise Refused(head["refused"])
        return head, body

    async def stop(self) -> None:
        """End the process."""
        if self._process is None or self._process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def _within(self, seconds: float, reply: Any) -> Message:
        try:
            async with asyncio.timeout(seconds):
                return await reply
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            await self.stop()
            raise Lost(self.module) from error
        except BaseException:
            await self.stop()  # a reply on its way would be taken for the next one's
            raise

    async def _exchange(self, message: bytes) -> Message:
        assert self._process and self._process.stdin
        self._process.stdin.write(message)
        await self._process.stdin.drain()
        return await self._read()

    async def _read(self) -> Message:
        assert self._process and self._process.stdout
        read = self._process.stdout.readexactly
        text, body = FRAME.unpack(await read(FRAME.size))
        if text + body > LONGEST:
            raise ValueError("no reply is so long")
        return json.loads(await read(text)), await read(body)


class Pool:
    """Children of one kind, each message to one that is free.

    Args:
        module: of `vitlab`, run as a program.
        words: its arguments.
        count: children.
        seconds: for one message.
    """

    def __init__(self, module: str, words: list[str], *, count: int, seconds: float):
        self._children = [Child(module, words, seconds) for _ in range(count)]
        self._free: asyncio.Queue[Child] = asyncio.Queue()
        for child in self._children:
            self._free.put_nowait(child)

    async def start(self) -> dict[str, Any]:
        """Start all children; returns the hello of the first."""
        children = [await self._free.get() for _ in self._children]
        try:
            await asyncio.gather(*(child.start() for child in children))
        finally:
            for child in children:
                self._free.put_nowait(child)
        return children[0].hello

    async def ask(self, head: dict[str, Any], body: bytes) -> Message:
        """Send a message to the next free child.

        Whoever is cancelled while it waits leaves no trace. A child that has begun goes on to its
        reply, because starting another one takes longer.
        """
        child = await self._free.get()
        task = asyncio.ensure_future(child.ask(head, body))
        task.add_done_callback(lambda done: self._release(child, done))
        return await asyncio.shield(task)

    def _release(self, child: Child, done: asyncio.Future[Message]) -> None:
        self._free.put_nowait(child)
        if not done.cancelled():
            done.exception()  # looked at, whether or not anybody still waits

    async def stop(self) -> None:
        """End all children."""
        await asyncio.gather(*(child.stop() for child in self._children))


# In the child


def attend(answer: Callable[[dict[str, Any], bytes], Message], hello: dict[str, Any]) -> None:
    """Answer messages until the parent has gone; VitlabError is a reply like any other."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        # What libraries print must not end up between two replies.
        replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        messages = sys.stdin.buffer
        _send(replies, (hello, b""))
        while lengths := messages.read(FRAME.size):
            text, body = FRAME.unpack(lengths)
            head = json.loads(messages.read(text))
            try:
                reply = answer(head, messages.read(body))
            except VitlabError as error:
                reply = {"refused": str(error)}, b""
            _send(replies, reply)


def _send(file: BinaryIO, message: Message) -> None:
    file.write(pack(*message))
    file.flush()

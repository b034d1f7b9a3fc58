"""A TCP relay that is a bad network on request: slow, narrow, resetting, half-open, black, cut inside a packet.

It stands where the kernel has no netem and works without root. One relay a party, all on one thread.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

CHUNK_BYTES = 4096
PUBLISH = 3


@dataclass(slots=True)
class Weather:
    """How a relay treats its connections now; the defaults are a good network.

    Attributes:
        delay_seconds: every byte arrives so much later, in each direction.
        bytes_per_second: of each direction; None for no limit.
        swallow_up: what the party sends is read and thrown away.
        swallow_down: what the broker sends is read and thrown away.
        refuse: new connections are reset at once.
        flip_one_in: of so many chunks, one gets one bit changed; 0 for none.
        cut_publish: the next MQTT PUBLISH is cut in its middle, and the connection with it.
        jitter_seconds: cut every chunk at random places and deliver the parts up to so much apart.
    """

    delay_seconds: float = 0.0
    bytes_per_second: float | None = None
    swallow_up: bool = False
    swallow_down: bool = False
    refuse: bool = False
    flip_one_in: int = 0
    cut_publish: bool = False
    jitter_seconds: float = 0.0


class _Pipe:
    """One connection through a relay: two directions."""

    def __init__(self, relay: Relay, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.relay = relay
        self.near = near
        self.far = far

    def reset(self) -> None:
        """Reset both ends."""
        for writer in (self.near, self.far):
            _reset(writer)

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        """Carry one direction until either end closes. Delay keeps the order and does not add up."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        sender = asyncio.create_task(self._send(queue, writer, up=up))
        try:
            while data := await reader.read(CHUNK_BYTES):
                await queue.put((loop.time() + self.relay.weather.delay_seconds, data))
        except OSError:
            pass
        finally:
            await queue.put((0.0, b""))
            await sender

    async def _send(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, up: bool) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            weather, rng = self.relay.weather, self.relay.rng
            swallows = weather.swallow_up if up else weather.swallow_down
            if not data:
                if not swallows:  # else this end never hears that the other one is gone
                    with suppress(OSError):
                        writer.write_eof()
                return
            await asyncio.sleep(max(0.0, due - loop.time()))
            if swallows:
                self.relay.swallowed += len(data)
                continue
            if weather.flip_one_in and rng.randrange(weather.flip_one_in) == 0:
                data = _flipped(data, rng)
            if weather.cut_publish and data[0] >> 4 == PUBLISH and len(data) > 8:
                weather.cut_publish = False
                with suppress(OSError):
                    writer.write(data[: rng.randrange(2, len(data))])
                    await writer.drain()
                await asyncio.sleep(0.05)  # lets the part arrive before the reset throws it away
                self.reset()
                continue
            try:
                await self._write(writer, data, weather, rng)
            except OSError:
                continue  # go on reading, so that the other end is not held up

    @staticmethod
    async def _write(writer: asyncio.StreamWriter, data: bytes, weather: Weather, rng: random.Random) -> None:
        if writer.is_closing():  # asyncio would log what is thrown away
            return
        if weather.jitter_seconds:
            cut = rng.randrange(len(data))
            writer.write(data[:cut])
            await writer.drain()
            await asyncio.sleep(rng.uniform(0, weather.jitter_seconds))
            data = data[cut:]
        if weather.bytes_per_second is not None:
            await asyncio.sleep(len(data) / weather.bytes_per_second)
        writer.write(data)
        await writer.drain()


class Relay:
    """The way of one party to the broker.

    Attributes:
        port: where the party connects to.
        weather: how connections are treated now; changed from any thread through `Proxies.change`.
        swallowed: bytes that were thrown away.
    """

    def __init__(self, target: tuple[str, int], rng: random.Random) -> None:
        self.port = 0
        self.weather = Weather()
        self.rng = rng
        self.swallowed = 0
        self.connections = 0
        self._target = target
        self._pipes: set[_Pipe] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.weather.refuse:
            _reset(near)
            return
        try:
            far_reader, far = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(near)
            return
        for writer in (near, far):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipe = _Pipe(self, near, far)
        self._pipes.add(pipe)
        try:
            # Cancelled only when the relay ends; asyncio's streams would log that as an error.
            with suppress(asyncio.CancelledError):
                await asyncio.gather(pipe.run(reader, far, up=True), pipe.run(far_reader, near, up=False))
        finally:
            self._pipes.discard(pipe)
            near.close()
            far.close()

    def reset(self) -> None:
        """Reset every connection; on the proxies' thread."""
        for pipe in tuple(self._pipes):
            pipe.reset()

    def half_open(self) -> None:
        """Close the broker's ends; the party's stay open and silent. On the proxies' thread."""
        self.weather.swallow_up = self.weather.swallow_down = True
        for pipe in tuple(self._pipes):
            _reset(pipe.far)

    async def close(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        self.reset()


class Proxies:
    """The relays of all parties, on a thread of their own.

    Args:
        target: host and port of the broker.
        names: of the parties; each gets a relay.
        host: where the relays listen.
        seed: of what they draw.
        enter: called first on the thread; enters a network namespace, for example.
    """

    def __init__(
        self,
        target: tuple[str, int],
        names: tuple[str, ...],
        *,
        host: str = "127.0.0.1",
        seed: int = 0,
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        self.relays = {name: Relay(target, random.Random(f"{seed}/{name}")) for name in names}
        self.host = host
        self._enter = enter
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failure: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="proxies", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def change(self, name: str, **weather: Any) -> None:  # noqa: ANN401 the fields of Weather
        """Give a party's network another weather."""
        self._loop.call_soon_threadsafe(lambda: setattr(self.relays[name], "weather", Weather(**weather)))

    def reset(self, name: str) -> None:
        """Reset a party's connections."""
        self._loop.call_soon_threadsafe(self.relays[name].reset)

    def half_open(self, name: str) -> None:
        """Make a party's connections half-open."""
        self._loop.call_soon_threadsafe(self.relays[name].half_open)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._enter()
            for relay in self.relays.values():
                self._loop.run_until_complete(relay.start(self.host))
        except OSError as error:
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        for relay in self.relays.values():
            await relay.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other end sees a reset."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _flipped(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :]

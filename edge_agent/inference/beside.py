"""Runs side by side in the worker: threads that come to be once a model asks for them, and buffers of inputs."""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable

from edge_agent.inference import frames, limits


class Beside:
    """Carries out runs on threads of its own; who gives one goes on at once.

    Args:
        run: carries out and answers one.
    """

    def __init__(self, run: Callable[[frames.Frame], None]) -> None:
        self._run = run
        self._runs: queue.SimpleQueue[tuple[frames.Frame, frames.Room]] = queue.SimpleQueue()
        self._free: queue.SimpleQueue[frames.Room] = queue.SimpleQueue()
        self._threads = 0
        self._under_way = 0
        self._change = threading.Condition()

    def put(self, frame: frames.Frame, room: frames.Room, lanes: int) -> list[frames.Room]:
        """Have a run carried out.

        Args:
            frame: the command.
            room: holds its inputs until it is done.
            lanes: so many are computed at once; with one more that waits, whoever gives more waits for an end.

        Returns:
            Rooms that are free again.
        """
        while self._threads < lanes:
            limits.count_stacks(1)
            threading.Thread(target=self._serve, name="lane", daemon=True).start()
            self._threads += 1
        with self._change:
            self._change.wait_for(lambda: self._under_way <= lanes)
            self._under_way += 1
        self._runs.put((frame, room))
        free = []
        while not self._free.empty():
            free.append(self._free.get())
        return free

    def wait(self) -> None:
        """Wait until every run is done."""
        with self._change:
            self._change.wait_for(lambda: not self._under_way)

    def _serve(self) -> None:
        while True:
            frame, room = self._runs.get()
            try:
                self._run(frame)
            except (BrokenPipeError, ConnectionResetError):
                pass  # the daemon went away; whoever reads commands notices, too
            except BaseException:  # noqa: BLE001 - as it would end the process on the main thread
                traceback.print_exc()
                os._exit(1)
            finally:
                del frame
                self._free.put(room)
                with self._change:
                    self._under_way -= 1
                    self._change.notify_all()

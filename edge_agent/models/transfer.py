"""One request for the bytes of a file, over https, http or from a local file: bounded in time, size and redirects.

The only place of the downloads that imports urllib3; one kind of error, `TransferError`, leaves it. Nothing that comes
is believed: who asks hashes it.
"""

from __future__ import annotations

import os
import stat
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import urllib3

from edge_agent._version import __version__

BLOCK_BYTES = 256 * 1024
MAX_REDIRECTS = 5
SLOWEST_BYTES_PER_SECOND = 1024
"""A source that gives less than this over `Limits.patience_seconds` is given up."""
MAX_RETRY_AFTER_SECONDS = 60.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ABSENT = frozenset({403, 404, 410})  # object stores say 403 for what is not there
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class TransferError(Exception):
    """A source did not give what was asked for.

    Attributes:
        again: whether the same source may do better in a moment.
        after_seconds: how long it wants to be left alone.
        discard: what came so far is not to be built upon.
        absent: the source is there and says that it has no such file.
    """

    def __init__(
        self,
        text: str,
        *,
        again: bool = False,
        after_seconds: float = 0.0,
        discard: bool = False,
        absent: bool = False,
    ) -> None:
        super().__init__(text)
        self.absent = absent
        self.again = again
        self.after_seconds = after_seconds
        self.discard = discard


@dataclass(frozen=True, slots=True)
class Limits:
    """How patient a request is; seconds."""

    connect_seconds: float = 10.0
    silence_seconds: float = 30.0
    patience_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Body:
    """What comes: its bytes from `start` on; a source may not be able to start in the middle, and begins at 0."""

    start: int
    blocks: Iterator[bytes]


class Source:
    """Makes requests.

    Args:
        limits: of each.
        monotonic: a clock, for the slowest speed that is borne.
    """

    def __init__(self, limits: Limits | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits or Limits()
        self._monotonic = monotonic
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    @contextmanager
    def open(self, url: str, start: int, size_bytes: int) -> Iterator[Body]:
        """Ask for the bytes of a file of `size_bytes` from `start` on.

        Raises:
            TransferError: also while the blocks are read.
        """
        if urlsplit(url).scheme == "file":
            with _open_file(url, start, size_bytes) as body:
                yield body
            return
        response = self._request(url, start)
        try:
            begins = _check(response, start, size_bytes)
            yield Body(begins, self._blocks(response))
        finally:
            response.close()

    def stream(self, url: str) -> Iterator[bytes]:
        """Give the bytes of a file whose size is not known; who asks stops when it is more than may be.

        Raises:
            TransferError: also while the blocks are read.
        """
        if urlsplit(url).scheme == "file":
            with _open_regular(url) as descriptor:
                yield from iter(lambda: os.read(descriptor, BLOCK_BYTES), b"")
            return
        response = self._request(url, 0)
        try:
            if response.status != 200:
                absent = response.status in _ABSENT
                raise TransferError(f"it answered {response.status} {response.reason or ''}".rstrip(), absent=absent)
            yield from self._blocks(response)
        finally:
            response.close()

    def _request(self, url: str, start: int) -> urllib3.BaseHTTPResponse:
        headers = {"User-Agent": f"edge-agent/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        timeout = urllib3.Timeout(connect=self._limits.connect_seconds, read=self._limits.silence_seconds)
        for _ in range(MAX_REDIRECTS + 1):
            try:
                response = self._pool(url).request(
                    "GET", url, headers=headers, timeout=timeout, preload_content=False, redirect=False, retries=False
                )
            except urllib3.exceptions.HTTPError as error:
                raise _failed(error) from error
            if response.status not in _REDIRECTS:
                return response
            response.close()
            url = _redirected(url, response.headers.get("Location"))
        raise TransferError(f"more than {MAX_REDIRECTS} redirects")

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Return connections to the URL's host, by the proxy that the environment names for it, if any."""
        parts = urlsplit(url)
        proxy = None
        if not urllib.request.proxy_bypass(parts.hostname or ""):
            proxy = urllib.request.getproxies().get(parts.scheme)
        if proxy not in self._pools:
            self._pools[proxy] = urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager()
        return self._pools[proxy]

    def _blocks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        since, came = self._monotonic(), 0
        while True:
            try:
                block = response.read1(BLOCK_BYTES, decode_content=False)
            except urllib3.exceptions.HTTPError as error:
                raise _failed(error) from error
            if not block:
                return
            yield block
            came += len(block)
            waited = self._monotonic() - since
            if waited >= self._limits.patience_seconds:
                if came < SLOWEST_BYTES_PER_SECOND * waited:
                    raise TransferError(f"too slow: {came} bytes in {waited:.0f} s")
                since, came = self._monotonic(), 0


def _check(response: urllib3.BaseHTTPResponse, start: int, size_bytes: int) -> int:
    """Return where the body begins, if the head says what it should."""
    status = response.status
    if status not in {200, 206}:
        if status == 416:
            raise TransferError("it has fewer bytes than we have already", discard=True)
        raise TransferError(
            f"it answered {status} {response.reason or ''}".rstrip(),
            again=status in _TRY_AGAIN,
            after_seconds=_retry_after(response.headers.get("Retry-After")),
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise TransferError("it packs the file although that was not asked for")
    begins = _begins(response.headers.get("Content-Range"), start) if status == 206 else 0
    length = response.headers.get("Content-Length", "")
    if length.isascii() and length.isdigit() and length.lstrip("0") != str(size_bytes - begins).lstrip("0"):
        raise TransferError(f"it announces {length[:20]} bytes instead of {size_bytes - begins}")
    return begins


def _begins(content_range: str | None, start: int) -> int:
    if content_range is None or not content_range.startswith(f"bytes {start}-"):
        raise TransferError("it sends another part of the file than was asked for", discard=True)
    return start


def _retry_after(text: str | None) -> float:
    # The other form, a date, depends on two clocks; the ordinary back-off serves as well.
    return min(float(text[:9]), MAX_RETRY_AFTER_SECONDS) if text and text.isascii() and text.isdigit() else 0.0


def _redirected(url: str, location: str | None) -> str:
    if not location:
        raise TransferError("it redirects to nowhere")
    try:
        target = urljoin(url, location)
        before, after = urlsplit(url).scheme, urlsplit(target).scheme
    except ValueError as error:
        raise TransferError("it redirects to an address that is not valid") from error
    if after != before and (before, after) != ("http", "https"):
        raise TransferError(f"it redirects from {before} to {after or 'nothing'}, which is not followed")
    if not urlsplit(target).hostname:
        raise TransferError("it redirects to nowhere")
    return target


def _failed(error: urllib3.exceptions.HTTPError) -> TransferError:
    match error:
        case urllib3.exceptions.SSLError():
            return TransferError(f"its certificate is not accepted: {error}")
        case urllib3.exceptions.NameResolutionError():
            return TransferError("its name is not known", again=True)
        case urllib3.exceptions.IncompleteRead() | urllib3.exceptions.ProtocolError():
            return TransferError("the connection broke off", again=True)
        case urllib3.exceptions.ReadTimeoutError():
            return TransferError("it went silent", again=True)
        case urllib3.exceptions.LocationValueError() | urllib3.exceptions.URLSchemeUnknown():
            return TransferError("its address is not valid")
    return TransferError("it cannot be reached", again=True)


@contextmanager
def _open_file(url: str, start: int, size_bytes: int) -> Iterator[Body]:
    with _open_regular(url) as descriptor:
        found = os.fstat(descriptor).st_size
        if found != size_bytes:
            raise TransferError(f"it has {found} bytes instead of {size_bytes}")
        os.lseek(descriptor, start, os.SEEK_SET)
        yield Body(start, iter(lambda: os.read(descriptor, BLOCK_BYTES), b""))


@contextmanager
def _open_regular(url: str) -> Iterator[int]:
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise TransferError("a file URL names a file of this machine, file:///…")
    path = Path(unquote(parts.path))
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError)
        raise TransferError(f"it cannot be opened: {error.strerror}", absent=absent) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise TransferError("it is not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)

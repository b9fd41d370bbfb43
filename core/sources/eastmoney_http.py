"""HTTP for a public site that blocks bursts: time limits, a rate limit, retries, and clear errors."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import httpcore
import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_when_event_set
from tenacity.wait import wait_exponential_jitter

from core.errors import (
    ConfigurationError,
    SourceChanged,
    SourceError,
    SourceRefused,
    SourceUnavailable,
    UnknownFund,
)

T = TypeVar("T")

# The largest known reply is 3.5 MB; anything near this is not one of ours.
MAX_REPLY_BYTES = 64_000_000

_HEADERS = {
    # Without this Referer the site answers ErrCode -999.
    "Referer": "https://fund.eastmoney.com/",
    "User-Agent": (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/126.0.0.0 Safari/537.36"
    ),
    "Accept-Language": "zh-CN,zh;q=0.9",
}


class RateLimiter:
    """Hands out evenly spaced turns, shared by all threads; never a burst."""

    def __init__(
        self,
        per_second: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1.0 / per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next_turn = clock()

    def wait(self) -> None:
        """Returns when it is this caller's turn."""
        with self._lock:
            now = self._clock()
            turn = max(now, self._next_turn)
            self._next_turn = turn + self._interval
        if turn > now:
            self._sleep(turn - now)


class EastmoneyHttp:
    """GET with parsing: `get` returns what `parse` made of the body, or raises a `SourceError`.

    `total_timeout` (seconds) bounds one attempt from connecting to the last byte, whatever the server
    does. Proxies and certificates come from the environment the usual way (HTTPS_PROXY, NO_PROXY,
    SSL_CERT_FILE); loopback addresses never go through a proxy. Raises `ConfigurationError` for an
    address or proxy that cannot be used.
    """

    def __init__(
        self,
        bases: Iterable[str],
        *,
        connect_timeout: float,
        read_timeout: float,
        total_timeout: float,
        attempts: int,
        requests_per_second: float,
        connections: int,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        headers: Mapping[str, str] = _HEADERS,
    ) -> None:
        self.server = ""  # the Server header of the last reply
        self._total_timeout = total_timeout
        self._attempts = attempts
        self._sleep = sleep
        self._clock = clock
        self._closed = False
        self._deadline = threading.local()
        self._streams: weakref.WeakSet[_DeadlineStream] = weakref.WeakSet()
        self._limiter = RateLimiter(requests_per_second, clock, sleep)
        hosts = [_checked_base(base).host for base in bases]
        loopback = {host for host in hosts if _is_loopback(host)}
        timeout = httpx.Timeout(read_timeout, connect=connect_timeout, pool=total_timeout)
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        try:
            self._client = httpx.Client(
                headers=headers,
                timeout=timeout,
                limits=limits,
                follow_redirects=True,
                trust_env=len(loopback) < len(hosts),
                mounts={f"all://{_bracketed(host)}": None for host in loopback},
            )
        except (ImportError, ValueError) as exc:  # what httpx raises for SOCKS and malformed proxies
            raise ConfigurationError(
                f"the proxy in the environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY) cannot be used: {exc}; "
                "set an http:// proxy or unset it"
            ) from exc
        self._install_deadlines()

    def get(
        self,
        url: str,
        params: dict[str, str],
        parse: Callable[[bytes], T],
        *,
        stop: threading.Event | None = None,
        not_found: str = "",
        refused: str = "",
    ) -> T:
        """Fetches and parses, again with growing pauses while the error says that may help.

        `stop`, when set, ends the retries. `not_found` is the text of the `UnknownFund` that a 404
        means; without it a 404 is a `SourceChanged`, since then the address itself is gone. `refused` is the
        text of the `SourceRefused` that a 400 means: the site does not take what was asked, or the key.
        """
        stopping = stop_after_attempt(self._attempts)
        retrying = Retrying(
            retry=retry_if_exception_type(SourceUnavailable),
            wait=wait_exponential_jitter(initial=1, max=20, jitter=1),
            stop=stopping if stop is None else stopping | stop_when_event_set(stop),
            sleep=self._sleep if stop is None else _interruptible(self._sleep, stop),
            reraise=True,
        )
        result: T = retrying(self._ask_once, url, params, None, parse, not_found, refused)
        return result

    def post(self, url: str, payload: dict[str, Any], parse: Callable[[bytes], T]) -> T:
        """As `get`, with a JSON body instead of a query."""
        retrying = Retrying(
            retry=retry_if_exception_type(SourceUnavailable),
            wait=wait_exponential_jitter(initial=1, max=20, jitter=1),
            stop=stop_after_attempt(self._attempts),
            sleep=self._sleep,
            reraise=True,
        )
        result: T = retrying(self._ask_once, url, {}, payload, parse, "", "")
        return result

    def close(self) -> None:
        """Closes the connections; requests still running in other threads fail at once."""
        self._closed = True  # from now on no operation begins, on any connection
        # Closing a socket does not wake a thread that waits on it, shutting it down does.
        for stream in list(self._streams):
            stream.shut_down()
        self._client.close()

    def _ask_once(
        self,
        url: str,
        params: dict[str, str],
        payload: dict[str, Any] | None,
        parse: Callable[[bytes], T],
        not_found: str,
        refused: str,
    ) -> T:
        self._limiter.wait()
        address = shown_address(url)
        try:
            body = self._fetch(url, params, payload, address, not_found, refused)
        except httpx.TimeoutException as exc:
            raise SourceUnavailable(
                f"{address} did not answer in time ({type(exc).__name__}; {self._total_timeout:g} s in all); "
                "check the network or try again later"
            ) from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise SourceUnavailable(
                f"no usable answer from {address}: {exc or type(exc).__name__}; "
                "check the network, the proxy settings and the address, or try again later"
            ) from exc
        try:
            return parse(body)
        except SourceError as exc:
            raise type(exc)(f"{address}: {exc}") from exc

    def _fetch(
        self,
        url: str,
        params: dict[str, str],
        payload: dict[str, Any] | None,
        address: str,
        not_found: str,
        refused: str,
    ) -> bytes:
        self._deadline.at = self._clock() + self._total_timeout
        with self._client.stream(
            "GET" if payload is None else "POST", url, params=params, json=payload
        ) as response:
            self.server = response.headers.get("Server", "")
            _check_status(response.status_code, address, not_found, refused)
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise SourceChanged(f"{address}: the reply is larger than {MAX_REPLY_BYTES:,} bytes")
            return bytes(body)

    def _install_deadlines(self) -> None:
        # httpx has no total time limit: its read time-out starts anew with every byte, in the headers
        # as in the body. The pool's network backend sees every single read, but httpx offers no public
        # way to set it; tests/test_eastmoney_client.py drips bytes to notice should this place move.
        for transport in (self._client._transport, *self._client._mounts.values()):
            if isinstance(transport, httpx.HTTPTransport):
                pool = transport._pool
                pool._network_backend = _DeadlineBackend(
                    pool._network_backend, self._remaining, self._streams
                )

    def _remaining(self) -> float:
        return 0.0 if self._closed else float(self._deadline.at - self._clock())


class _DeadlineBackend(httpcore.NetworkBackend):
    """A backend whose connections allow no single operation to last beyond the thread's deadline."""

    def __init__(
        self,
        inner: httpcore.NetworkBackend,
        remaining: Callable[[], float],
        streams: weakref.WeakSet[_DeadlineStream],
    ) -> None:
        self._inner = inner
        self._remaining = remaining
        self._streams = streams

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        timeout = _within(timeout, self._remaining(), httpcore.ConnectTimeout)
        inner = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        stream = _DeadlineStream(inner, self._remaining)
        self._streams.add(stream)
        return stream

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, remaining: Callable[[], float]) -> None:
        self._inner = inner
        self._remaining = remaining

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _within(timeout, self._remaining(), httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _within(timeout, self._remaining(), httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def shut_down(self) -> None:
        """Ends the connection under whoever is using it; the TCP connection under TLS, too."""
        connected = self._inner.get_extra_info("socket")
        if isinstance(connected, socket.socket):
            with contextlib.suppress(OSError):  # already gone
                socket.socket.shutdown(connected, socket.SHUT_RDWR)

    def start_tls(
        self, ssl_context: object, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        timeout = _within(timeout, self._remaining(), httpcore.ConnectTimeout)
        self._inner = self._inner.start_tls(ssl_context, server_hostname, timeout)  # type: ignore[arg-type]
        return self

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


def _within(timeout: float | None, remaining: float, error: type[Exception]) -> float:
    if remaining <= 0:
        raise error("total time limit reached")
    return remaining if timeout is None else min(timeout, remaining)


def _interruptible(sleep: Callable[[float], None], stop: threading.Event) -> Callable[[float], None]:
    """`sleep`, except that real sleeping ends when `stop` is set."""
    if sleep is not time.sleep:
        return sleep

    def until_stopped(seconds: float) -> None:
        stop.wait(seconds)

    return until_stopped


def _check_status(status: int, address: str, not_found: str, refused: str) -> None:
    if status == 200:
        return
    if status == 400 and refused:
        raise SourceRefused(refused)
    if status in (404, 410):
        if not_found:
            raise UnknownFund(not_found)
        raise SourceChanged(f"{address} answers HTTP {status}: the address has moved; check the base address")
    if status in (401, 403, 429):
        raise SourceUnavailable(f"{address} refuses us with HTTP {status}; wait, and lower the request rate")
    raise SourceUnavailable(f"{address} answers HTTP {status}; try again later")


def _checked_base(base: str) -> httpx.URL:
    try:
        url = httpx.URL(base)
    except httpx.InvalidURL as exc:
        raise ConfigurationError(f"the source address {base!r} is no URL: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(
            f"the source address {shown_address(base)!r} must start with https:// or http:// and name a host"
        )
    return url


def shown_address(url: str) -> str:
    """The address without user name, password and query: fit for messages and records."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}{parsed.path}".rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def http_client(
    *bases: str, requests_per_second: float, headers: Mapping[str, str] = _HEADERS, attempts: int = 4
) -> EastmoneyHttp:
    """A client for other public sites than that of NAVs, with the usual limits; one connection at a time."""
    return EastmoneyHttp(
        bases,
        connect_timeout=10.0,
        read_timeout=30.0,
        total_timeout=120.0,
        attempts=attempts,
        requests_per_second=requests_per_second,
        connections=1,
        headers=headers,
    )

"""The channels of NAVKEEPER_ALERT_CHANNELS: read, refused loudly where wrong, looked at without sending."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from core.errors import ConfigurationError

if TYPE_CHECKING:
    from config.settings import Settings

KEY, SWITCH_KEY = "NAVKEEPER_ALERT_CHANNELS", "NAVKEEPER_HEARTBEAT_URL"
ROBOTS = (
    "dingtalk",
    "wecom",
    "feishu",
    "webhook",
)  # each followed by +https://…, the address as the chat shows it
MAIL = {"smtp": 587, "smtps": 465}
APPRISE = "apprise"
A_MINUTE = {"dingtalk": 20, "wecom": 20, "feishu": 100}  # what their robots take
OTHERS_A_MINUTE = 60
OWN_PARAMETERS = {
    "dingtalk": ("secret", "keyword"),
    "feishu": ("secret", "keyword"),
}  # no part of the address
REACHED_WITHIN = 5.0
EXAMPLE = (
    "dingtalk+https://…?access_token=…&secret=SEC…, wecom+https://…, feishu+https://…?secret=…, webhook+https://…, "
    "smtp://user:password@host:587/?from=…&to=…, smtps://…, apprise+…; blanks between them"
)


@dataclass(frozen=True)
class Channel:
    """`name` is for people and may be seen by all: kind and place in the list. All else holds secrets."""

    name: str
    kind: str
    url: str = field(repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def per_minute(self) -> int:
        return A_MINUTE.get(self.kind, OTHERS_A_MINUTE)


@dataclass(frozen=True)
class ChannelCheck:
    name: str
    ok: bool
    text: str


def channels_of(settings: Settings) -> tuple[Channel, ...]:
    """In the order in which they are tried. Raises ConfigurationError that names key and place, never the value."""
    given = settings.alert_channels.get_secret_value().split() if settings.alert_channels else []
    return tuple(_channel(text, place) for place, text in enumerate(given, 1))


def heartbeat_of(settings: Settings) -> str | None:
    """The address of the dead man's switch, without a / at its end. Raises ConfigurationError."""
    if settings.heartbeat_url is None:
        return None
    url = settings.heartbeat_url.get_secret_value().strip().rstrip("/")
    found = _split(url)
    if found is None or found.scheme not in ("http", "https") or not found.hostname or found.query:
        raise ConfigurationError(
            f"{SWITCH_KEY} = (hidden) is not allowed: an address such as https://hc-ping.com/…, without a query"
        )
    return url


def _split(url: str) -> SplitResult | None:
    try:
        found = urlsplit(url)
        _ = found.port
    except ValueError:
        return None
    return found


def _refused(place: int, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{KEY} = (hidden) is not allowed: its entry no. {place}: {why}; there are {EXAMPLE}"
    )


def _channel(text: str, place: int) -> Channel:
    scheme = text.partition("://")[0]
    kind, _, rest = scheme.partition("+")
    if kind == APPRISE and rest:
        return _apprise(text, place)
    url = _split(text)
    if url is None or not url.hostname:
        raise _refused(place, "no address with a host")
    name = f"{kind}-{place}"
    if scheme in MAIL:
        return Channel(name, "smtp", text, _mail(url, place))
    if kind not in ROBOTS or rest not in ("http", "https"):
        raise _refused(place, "of no known kind")
    query = parse_qsl(url.query, keep_blank_values=True)
    ours = OWN_PARAMETERS.get(kind, ())
    own = {key: value for key, value in query if key in ours and value}
    others = [(key, value) for key, value in query if key not in ours]
    if kind in ("dingtalk", "wecom") and not dict(others).get(
        "access_token" if kind == "dingtalk" else "key"
    ):
        raise _refused(place, "without the access_token or key that its robot was given")
    if kind == "feishu" and not url.path.strip("/"):
        raise _refused(place, "without the path that its robot was given")
    address = url._replace(scheme=rest, query=urlencode(others), fragment="").geturl()
    return Channel(name, kind, address, own)


def _mail(url: SplitResult, place: int) -> dict[str, str]:
    query = dict(parse_qsl(url.query))
    if "@" not in query.get("from", "") or "@" not in query.get("to", ""):
        raise _refused(place, "mail needs ?from=address&to=address (several with commas)")
    if bool(url.username) != bool(url.password):
        raise _refused(place, "mail needs user and password, or neither")
    security = (
        "tls" if url.scheme == "smtps" else query.get("security", "starttls" if url.username else "none")
    )
    if security not in ("tls", "starttls", "none"):
        raise _refused(place, "security is starttls or none")
    return {
        "host": url.hostname or "",
        "port": str(url.port or MAIL[url.scheme]),
        "user": unquote(url.username or ""),
        "password": unquote(url.password or ""),
        "from": query["from"],
        "to": query["to"],
        "security": security,
    }


def _apprise(text: str, place: int) -> Channel:
    if importlib.util.find_spec("apprise") is None:
        raise _refused(
            place,
            "apprise is not installed here: pip install -c requirements.txt -r requirements-apprise.in",
        )
    from apprise import Apprise

    url = text.removeprefix(f"{APPRISE}+")
    if not Apprise().add(url):
        raise _refused(place, "apprise does not know such an address")
    return Channel(f"{APPRISE}-{place}", APPRISE, url)


def check_channels(settings: Settings) -> list[ChannelCheck]:
    """Whether each channel, and the dead man's switch, is written well and can be connected to. Sends nothing."""
    try:
        channels, switch = channels_of(settings), heartbeat_of(settings)
    except ConfigurationError as error:
        return [ChannelCheck("configuration", False, str(error))]
    found = [_reached(channel.name, *_address(channel)) for channel in channels if channel.kind != APPRISE]
    found += [
        ChannelCheck(channel.name, True, "known to apprise")
        for channel in channels
        if channel.kind == APPRISE
    ]
    if switch is not None:
        found.append(_reached("heartbeat", *_host(switch)))
    return found


def _address(channel: Channel) -> tuple[str, int]:
    if channel.kind == "smtp":
        return channel.options["host"], int(channel.options["port"])
    return _host(channel.url)


def _host(address: str) -> tuple[str, int]:
    url = urlsplit(address)
    return url.hostname or "", url.port or (443 if url.scheme == "https" else 80)


def _reached(name: str, host: str, port: int) -> ChannelCheck:
    try:
        with socket.create_connection((host, port), timeout=REACHED_WITHIN):
            return ChannelCheck(name, True, f"{host}:{port} answers")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else None
        return ChannelCheck(name, False, f"{host}:{port} cannot be reached: {why or error}")

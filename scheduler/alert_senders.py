"""How each channel is spoken to. HTTP 200 says nothing: the chats put their refusals into the reply's body.

DingTalk, WeCom and Feishu are addressed as their documents for group robots say.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import signal
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from types import FrameType
from typing import Any

from core.errors import NavKeeperError
from scheduler.alert_channels import Channel
from scheduler.alert_text import Message

PATIENCE = 10.0  # seconds, for each step of a conversation
LONGEST = 30.0  # for all of it: one that answers byte by byte does not keep the others waiting
LARGEST_REPLY = 65536
ELLIPSIS = "…"
DINGTALK_BYTES = 16_000  # of 20,000 in a body
WECOM_BYTES = 4096
FEISHU_BYTES = 16_000  # of 20 KB in a body
OTHER_BYTES = 100_000


class NotSent(NavKeeperError):
    """A channel did not take a message; why, in its own words, which may be long and quote its secrets."""

    code = "not_sent"
    retry = True


def send(channel: Channel, message: Message, now: datetime) -> None:
    """Send by one channel, within LONGEST; in a process's main thread only. Raises NotSent."""
    with _at_most(LONGEST):
        SENDERS[channel.kind](channel, message, now)


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    def expired(_number: int, _frame: FrameType | None) -> None:
        raise NotSent(f"not done within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cut_bytes(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8; an ellipsis stands for what was cut."""
    raw = text.encode()
    if len(raw) <= limit:
        return text
    return raw[: limit - len(ELLIPSIS.encode())].decode(errors="ignore").rstrip() + ELLIPSIS


def _markdown(message: Message, title_mark: str = "### ") -> str:
    """The lines of the text stay lines: two blanks before each break."""
    return f"{title_mark}{message.title}\n\n" + message.text.replace("\n", "  \n")


def _dingtalk(channel: Channel, message: Message, now: datetime) -> None:
    params: dict[str, str] = {}
    secret = channel.options.get("secret")
    if secret:
        stamp = str(round(now.timestamp() * 1000))
        signed = hmac.new(secret.encode(), f"{stamp}\n{secret}".encode(), hashlib.sha256).digest()
        params = {"timestamp": stamp, "sign": base64.b64encode(signed).decode()}
    keyword = channel.options.get("keyword", "")
    title = message.title if keyword in message.title else f"{keyword} {message.title}"
    text = cut_bytes(_markdown(Message(title, message.text)), DINGTALK_BYTES)
    body = {"msgtype": "markdown", "markdown": {"title": title, "text": text}}
    _refuse_code(_post(channel.url, body, params), "errcode", "errmsg")


def _wecom(channel: Channel, message: Message, _now: datetime) -> None:
    body = {"msgtype": "markdown", "markdown": {"content": cut_bytes(_markdown(message), WECOM_BYTES)}}
    _refuse_code(_post(channel.url, body), "errcode", "errmsg")


def _feishu(channel: Channel, message: Message, now: datetime) -> None:
    body: dict[str, Any] = {"msg_type": "text"}
    secret = channel.options.get("secret")
    if secret:
        stamp = str(int(now.timestamp()))
        signed = hmac.new(f"{stamp}\n{secret}".encode(), b"", hashlib.sha256).digest()
        body |= {"timestamp": stamp, "sign": base64.b64encode(signed).decode()}
    keyword = channel.options.get("keyword", "")
    title = message.title if keyword in message.title else f"{keyword} {message.title}"
    body["content"] = {"text": cut_bytes(f"{title}\n\n{message.text}", FEISHU_BYTES)}
    reply = _post(channel.url, body)
    _refuse_code(reply, "code" if "code" in reply else "StatusCode", "msg")


def _webhook(channel: Channel, message: Message, now: datetime) -> None:
    body = {"title": message.title, "text": message.text, "sent_at": now.isoformat(timespec="seconds")}
    _post(channel.url, body, wants_json=False)


def _refuse_code(reply: dict[str, Any], code: str, words: str) -> None:
    if reply.get(code) != 0:
        raise NotSent(f"refused with {code} {reply.get(code)}: {reply.get(words)}")


def _post(
    url: str, body: dict[str, Any], params: dict[str, str] | None = None, *, wants_json: bool = True
) -> dict[str, Any]:
    """The reply's JSON object, if one is wanted. Raises NotSent."""
    content = json.dumps(body, ensure_ascii=False).encode()
    raw = _request("POST", url, params, content)
    if not wants_json:
        return {}
    try:
        reply = json.loads(raw)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise NotSent(f"answered with no JSON object: {raw.decode(errors='replace')}")
    return reply


def _request(
    method: str, url: str, params: dict[str, str] | None = None, content: bytes | None = None
) -> bytes:
    import httpx

    headers = {"Content-Type": "application/json; charset=utf-8"} if content is not None else {}
    try:
        with (
            httpx.Client(timeout=PATIENCE) as client,
            client.stream(
                method, httpx.URL(url).copy_merge_params(params or {}), content=content, headers=headers
            ) as reply,
        ):
            raw = b""
            for part in reply.iter_bytes():
                raw += part
                if len(raw) > LARGEST_REPLY:
                    raise NotSent(f"answered with more than {LARGEST_REPLY} bytes")
            if not reply.is_success:
                raise NotSent(f"answered with HTTP {reply.status_code}")
            return raw
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotSent(f"{type(error).__name__}: {error}") from None


def ping(url: str) -> None:
    """Tell the dead man's switch. Raises NotSent."""
    with _at_most(LONGEST):
        _request("GET", url)


def _smtp(channel: Channel, message: Message, now: datetime) -> None:
    options = channel.options
    mail = EmailMessage()
    mail["Subject"] = message.title
    mail["From"], mail["To"] = options["from"], options["to"].replace(",", ", ")
    mail["Date"], mail["Message-ID"] = format_datetime(now), make_msgid(domain="navkeeper")
    mail.set_content(cut_bytes(message.text, OTHER_BYTES))
    host, port, security = options["host"], int(options["port"]), options["security"]
    tls = ssl.create_default_context()
    try:
        server = (
            smtplib.SMTP_SSL(host, port, timeout=PATIENCE, context=tls)
            if security == "tls"
            else smtplib.SMTP(host, port, timeout=PATIENCE)
        )
        with server:
            if security == "starttls":
                server.starttls(context=tls)
            if options["user"]:
                server.login(options["user"], options["password"])
            refused = server.send_message(mail)
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise NotSent(f"{type(error).__name__}: {error}") from None
    if refused:
        raise NotSent(f"refused for {len(refused)} of the addresses")


def _apprise(channel: Channel, message: Message, _now: datetime) -> None:
    from apprise import Apprise

    sender = Apprise()
    if not sender.add(channel.url) or not sender.notify(title=message.title, body=message.text):
        raise NotSent("apprise could not send it; its own words are in the log")


SENDERS: dict[str, Callable[[Channel, Message, datetime], None]] = {
    "dingtalk": _dingtalk,
    "wecom": _wecom,
    "feishu": _feishu,
    "webhook": _webhook,
    "smtp": _smtp,
    "apprise": _apprise,
}

"""Each channel against a server that answers as the real one does; mail through a real SMTP server."""

from __future__ import annotations

import base64
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, policy
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from config.settings import load_settings
from core.errors import ConfigurationError
from scheduler import alert_senders
from scheduler.alert_channels import Channel, channels_of, check_channels, heartbeat_of
from scheduler.alert_delivery import Post
from scheduler.alert_senders import NotSent, cut_bytes, send
from scheduler.alert_text import Message
from tests.chat_servers import SECRET, TOKEN, ChatServer

NOW = datetime(2025, 11, 27, 12, 0, tzinfo=UTC)
HELLO = Message("NavKeeper 告警: 净值采集失败", "第一行\n第二行")


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    with ChatServer(lambda: NOW) as server:
        yield server


def channel(text: str) -> Channel:
    [found] = channels_of(load_settings(alert_channels=text))
    return found


@pytest.mark.parametrize("kind", ["dingtalk", "wecom", "feishu", "webhook"])
def test_a_message_arrives_signed_as_the_robot_wants_it(chat: ChatServer, kind: str) -> None:
    send(channel(chat.channel(kind)), HELLO, NOW)
    [(of, text)] = chat.said
    assert of == kind
    assert all(part in text for part in (HELLO.title, "第一行", "第二行"))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("dingtalk", "300005: token is not exist"),
        ("wecom", "93000: invalid"),
        ("feishu", "19001: param invalid"),
    ],
)
def test_http_200_with_an_error_code_is_a_failure(chat: ChatServer, kind: str, why: str) -> None:
    chat.refusing.add(kind)
    with pytest.raises(NotSent, match=why):
        send(channel(chat.channel(kind)), HELLO, NOW)


@pytest.mark.parametrize("kind", ["dingtalk", "feishu"])
def test_a_wrong_secret_is_refused_and_never_shown(chat: ChatServer, kind: str) -> None:
    text = chat.channel(kind).replace(SECRET, "SECanother-secret-of-that-robot")
    post = Post(load_settings(alert_channels=text), lambda: NOW)
    error = post.tried(post.channels[0], HELLO)
    assert error is not None
    assert "sign" in error
    post = Post(load_settings(alert_channels=chat.channel(kind)), lambda: datetime(2026, 1, 1, tzinfo=UTC))
    error = post.tried(post.channels[0], HELLO)  # whose words quote the secret
    assert error is not None
    assert "sign" in error
    assert SECRET not in error


@pytest.mark.parametrize("kind", ["dingtalk", "wecom", "feishu", "webhook"])
def test_a_gateway_that_fails_is_a_failure(chat: ChatServer, kind: str) -> None:
    chat.down.add(kind)
    with pytest.raises(NotSent, match="HTTP 502"):
        send(channel(chat.channel(kind)), HELLO, NOW)


def test_signatures_are_those_of_openssl(chat: ChatServer) -> None:
    def openssl(key: str, text: str) -> str:
        words = ["openssl", "dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{key.encode().hex()}"]
        done = subprocess.run([*words, "-binary"], input=text.encode(), capture_output=True, check=True)
        return base64.b64encode(done.stdout).decode()

    from tests.chat_servers import _signature

    stamp = "1764244800000"
    assert _signature(SECRET, f"{stamp}\n{SECRET}") == openssl(SECRET, f"{stamp}\n{SECRET}")
    assert _signature(f"1764244800\n{SECRET}", "") == openssl(f"1764244800\n{SECRET}", "")


def test_a_long_message_is_cut_to_what_the_chat_takes(chat: ChatServer) -> None:
    for kind in ("dingtalk", "wecom", "feishu"):
        send(channel(chat.channel(kind)), Message("标题", "净值" * 10_000), NOW)
    lengths = {kind: len(text.encode()) for kind, text in chat.said}
    assert all(text.endswith("…") for _kind, text in chat.said)
    assert 4090 <= lengths["wecom"] <= 4096
    assert max(lengths.values()) <= 16_000
    assert cut_bytes("净值", 6) == "净值"
    assert cut_bytes("净值净", 8) == "净…"


def test_one_that_never_answers_is_given_up(chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_senders, "LONGEST", 0.5)
    chat.hanging.add("dingtalk")
    begun = time.monotonic()
    with pytest.raises(NotSent, match="not done within"):
        send(channel(chat.channel("dingtalk")), HELLO, NOW)
    assert time.monotonic() - begun < 5


def test_the_next_channel_takes_what_one_refuses_and_limits_hold(chat: ChatServer) -> None:
    words = " ".join(chat.channel(kind) for kind in ("dingtalk", "wecom", "feishu"))
    post = Post(load_settings(alert_channels=words), lambda: NOW)
    chat.too_fast.add("dingtalk")
    used = {"wecom-2": 20}
    taken, error = post.send(HELLO, lambda name: used.get(name, 0))
    assert taken == "feishu-3"
    assert error is not None
    assert "dingtalk-1: refused with errcode 130101" in error
    assert "wecom-2: 20 messages within a minute" in error
    assert chat.asked == ["dingtalk", "feishu"]


class Inbox:
    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append((envelope.rcpt_tos, message_from_bytes(envelope.content, policy=policy.default)))
        return "250 OK"


def test_mail_goes_through_a_real_server_with_login() -> None:
    inbox = Inbox()

    def known(_server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> AuthResult:
        good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"keeper", b"p@ss word/9")
        return AuthResult(success=good, handled=False)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=port,
        authenticator=known,
        auth_require_tls=False,
        auth_required=True,
    )
    controller.start()
    try:
        query = "?from=keeper@example.com&to=a@example.com,b@example.com&security=none"
        send(channel(f"smtp://keeper:p%40ss%20word%2F9@127.0.0.1:{port}/{query}"), HELLO, NOW)
        [(to, mail)] = inbox.mails
        assert to == ["a@example.com", "b@example.com"]
        assert mail["Subject"] == HELLO.title
        assert mail.get_content().split() == HELLO.text.split()
        with pytest.raises(NotSent, match="SMTPAuthenticationError"):
            send(channel(f"smtp://keeper:wrong@127.0.0.1:{port}/{query}"), HELLO, NOW)
    finally:
        controller.stop()


def test_apprise_speaks_to_the_rest(chat: ChatServer) -> None:
    send(channel(f"apprise+json://{chat.address}/apprise/"), HELLO, NOW)
    assert chat.said == [("apprise", HELLO.text)]
    chat.down.add("apprise")
    with pytest.raises(NotSent, match="apprise"):
        send(channel(f"apprise+json://{chat.address}/apprise/"), HELLO, NOW)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("dingtalk://host/secretpath", "of no known kind"),
        ("dingtalk+https://oapi.dingtalk.com/robot/send", "without the access_token"),
        ("wecom+https://qyapi.weixin.qq.com/send?kay=secretpath", "without the access_token or key"),
        ("feishu+https://open.feishu.cn/", "without the path"),
        ("smtp://mail.example.com?to=a@b.c", "from=address"),
        ("smtp://user@mail.example.com/?from=a@b.c&to=a@b.c", "user and password"),
        ("webhook+https://host:secretpath/", "no address"),
        ("telegram", "no address"),
        ("apprise+nothing://secretpath", "apprise does not know"),
        ("webhook+https://fine.example.com/x webhook+ftp://secretpath/", "no. 2"),
    ],
)
def test_a_wrong_channel_is_named_without_its_secrets(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match="NAVKEEPER_ALERT_CHANNELS") as caught:
        channels_of(load_settings(alert_channels=text))
    assert why in str(caught.value)
    assert "secretpath" not in str(caught.value)


def test_secrets_are_in_no_repr_and_known_to_the_log(chat: ChatServer) -> None:
    words = " ".join(chat.channel(kind) for kind in ("dingtalk", "wecom", "feishu"))
    mail = "smtp://keeper:short@mail.example.com/?from=a@example.com&to=b@example.com"
    settings = load_settings(alert_channels=f"{words} {mail}", heartbeat_url=f"https://hc-ping.com/{TOKEN}/")
    shown = f"{settings!r} {channels_of(settings)!r}"
    assert not any(secret in shown for secret in (TOKEN, SECRET, "short@"))
    assert {TOKEN, SECRET, "short"} <= set(settings.secrets())
    assert not {"robot", "send", "hook", "cgi-bin"} & set(settings.secrets())
    assert heartbeat_of(settings) == f"https://hc-ping.com/{TOKEN}"
    with pytest.raises(ConfigurationError, match="NAVKEEPER_HEARTBEAT_URL"):
        heartbeat_of(load_settings(heartbeat_url="hc-ping.com/x"))


def test_channels_are_looked_at_without_sending(chat: ChatServer) -> None:
    words = f"{chat.channel('wecom')} webhook+http://127.0.0.1:9/x"
    found = check_channels(load_settings(alert_channels=words, heartbeat_url=f"http://{chat.address}/ping"))
    assert [(check.name, check.ok) for check in found] == [
        ("wecom-1", True),
        ("webhook-2", False),
        ("heartbeat", True),
    ]
    assert (chat.said, chat.asked) == ([], [])
    [wrong] = check_channels(load_settings(alert_channels="nonsense"))
    assert not wrong.ok

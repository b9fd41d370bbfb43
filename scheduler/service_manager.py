"""What systemd is told (sd_notify(3)): ready, alive, stopping. Without systemd, nobody."""

from __future__ import annotations

import socket


def notify(address: str | None, message: str) -> None:
    """Send one datagram to the service manager's socket; `address` may name an abstract one with '@'."""
    if not address:
        return
    path = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(False)  # who does not read must not hold the daemon up
        try:
            channel.connect(path)
            channel.send(message.encode())
        except OSError:  # it listens no more: nothing that this process could mend
            return

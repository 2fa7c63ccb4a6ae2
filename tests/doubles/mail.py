"""A mail server in this process: real SMTP on loopback, and what has arrived."""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP


class MailServer:
    """Takes mail for everybody, or refuses it when told to."""

    def __init__(self) -> None:
        self.takes = True
        self.mails: list[EmailMessage] = []
        self.port = 0

    @property
    def url(self) -> str:
        """As apprise has it."""
        return f"mailto://127.0.0.1:{self.port}?from=warmpool@example.org&to=oncall@example.org"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - its name
        """What aiosmtpd calls for each mail."""
        if not self.takes:
            return "451 try again later"
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"


@asynccontextmanager
async def a_mail_server() -> AsyncIterator[MailServer]:
    """One that runs meanwhile, in this loop."""
    server = MailServer()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: SMTP(server), "127.0.0.1", 0)
    async with listening:
        server.port = listening.sockets[0].getsockname()[1]
        yield server


def text_of(mail: EmailMessage) -> str:
    """What a person reads."""
    part = mail.get_body(("plain",))
    assert isinstance(part, EmailMessage)
    return str(part.get_content()).replace("\r\n", "\n")

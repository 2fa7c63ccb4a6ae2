"""Letters through apprise to a real SMTP server."""

import logging

import pytest

from doubles.mail import a_mail_server, text_of
from warmpool.domain.notices import Letter
from warmpool.effects.notify import AppriseSender
from warmpool.ports.notices import NotSent

LETTER = Letter("oncall", "warmpool: search/data", "Builds <failed>\n  & more: ü\n", urgent=True)


async def test_a_letter_arrives_word_for_word() -> None:
    async with a_mail_server() as server:
        await AppriseSender().send(LETTER, [server.url])
    (mail,) = server.mails
    assert mail["subject"] == LETTER.title
    assert mail["to"] == "oncall@example.org"
    assert text_of(mail).rstrip() == LETTER.body.rstrip()


async def test_a_server_that_refuses_is_told_without_the_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with a_mail_server() as server:
        server.takes = False
        with pytest.raises(NotSent, match=r"address 2 .mailto://. does not take it") as wrong:
            await AppriseSender().send(LETTER, ["json://127.0.0.1:1/hush", server.url])
    logged = [r.getMessage() for r in caplog.records if r.name != "mail.log"]  # the server's own
    for told in (str(wrong.value), *logged):
        assert "hush" not in told
        assert "example.org" not in told


async def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(NotSent, match=r"address 1 .without a scheme. is none"):
        await AppriseSender().send(LETTER, ["hush"])

"""The built-in redaction: what it replaces, what it keeps, and what it is known to miss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.evals.from_production.pii import redact_text


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("write to ann.b+shop@mail.example.co.uk, please", "write to [e-mail], please"),
        ("jörg@müller.example", "[e-mail]"),
        ("card 4111 1111 1111 1111.", "card [card]."),
        ("5500-0000-0000-0004 or 378282246310005", "[card] or [card]"),
        ("DE89370400440532013000 is it", "[IBAN] is it"),
        ("my IBAN is gb82 west 1234 5698 7654 32 from home", "my IBAN is [IBAN] from home"),
        ("NO93 8601 1117 947", "[IBAN]"),
        ("call +49 170 1234567 or 0049-170-1234567", "call [phone] or [phone]"),
        ("030/123 45 67, (030) 123456, 0 30 12 34 56 7", "[phone], [phone], 0 30 12 34 56 7"),
        ("(555) 123-4567 and 555-123-4567", "[phone] and [phone]"),
        ("٠١٧٠١٢٣٤٥٦٧", "[phone]"),
    ],
)
def test_what_is_replaced(text: str, redacted: str) -> None:
    """E-mail addresses, cards, IBANs and telephone numbers are replaced, and the text around them is kept."""
    assert redact_text(text)[0] == redacted


@pytest.mark.parametrize(
    "text",
    [
        "order 1042 of 2026-11-20 for 46,00 EUR",
        "since 01.12.2026, 14:00",
        "01/12/26",
        "card 4111 1111 1111 1112",
        "DE89370400440532013001",
        "tracking 1Z999AA10123456784",
        "invoice 2026-000123, item 9781234567",
        "@handle, a@b, price 12.345.678",
    ],
)
def test_what_is_kept(text: str) -> None:
    """Order numbers, dates, amounts, tracking numbers and numbers with a wrong checksum are kept."""
    assert redact_text(text) == (text, {})


@pytest.mark.parametrize(
    "text", ["Ann Miller, 12 High Street", "born on 3 May 1990", "call 1234567", "ann at example dot com"]
)
def test_what_is_missed(text: str) -> None:
    """Names, postal addresses, birthdays, local telephone numbers and spelled-out addresses are not replaced."""
    assert redact_text(text) == (text, {})


@given(st.text(), st.text())
def test_text_around_a_match(before: str, after: str) -> None:
    """An address between spaces is replaced, with any text before and after it."""
    text, counts = redact_text(f"{before}\n* ann@example.com *\n{after}")
    assert "\n* [e-mail] *\n" in text
    assert counts["e-mail"] >= 1
    assert "ann@example.com" not in text


@given(st.text())
def test_redaction_is_idempotent(text: str) -> None:
    """Redacting a redacted text changes nothing."""
    once, _ = redact_text(text)
    assert redact_text(once) == (once, {})


def test_counts() -> None:
    """Replacements are counted by kind."""
    assert redact_text("a@b.example c@d.example +49 170 1234567")[1] == {"e-mail": 2, "phone": 1}

"""The built-in redaction of what people wrote, for sets where the operator named none of their own.

It finds e-mail addresses; card numbers of 13 to 19 digits that pass the Luhn check; IBANs that pass the check of ISO
7064; and telephone numbers that begin with +, 00 or 0, or are written as 555-123-4567 or (555) 123-4567. Digits of
other scripts count as digits. It does not find names, postal addresses, dates of birth, passwords, numbers of passports
and of customers, telephone numbers without their first digits, or anything that is spelled out or in a picture: a
person has to read what it leaves.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping

_EMAIL = re.compile(r"[\w.+%-]{1,64}@(?:[\w-]{1,63}\.)+[^\W\d_]{2,24}")
_CARD = re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)")
_IBAN = re.compile(r"(?i)\b[a-z]{2}\d{2}(?:[a-z0-9]{11,30}|(?: [a-z0-9]{1,4}){3,8})\b")
_PHONE = re.compile(
    r"(?<![\w.])(?:"
    r"(?:\+|00)[1-9](?:[ ()./-]{0,2}\d){6,14}"
    r"|\(0\d{1,5}\)(?:[ ./-]{0,2}\d){4,10}"
    r"|0[1-9](?:[ ()./-]{0,2}\d){6,12}"
    r"|\(?[2-9]\d{2}\)?[ .-]\d{3}[ .-]\d{4}"
    r")(?!\w)"
)
_DATE = re.compile(r"\d{1,2}[./-]\d{1,2}[./-](?:\d{2}|\d{4})(?:\D.*)?")


def redact_text(text: str) -> tuple[str, Mapping[str, int]]:
    """The text with a mark such as `[e-mail]` in place of each find, and how many there were of each kind."""
    found: Counter[str] = Counter()

    def marked(pattern: re.Pattern[str], mark: str, confirmed: Callable[[str], int], text: str) -> str:
        pieces, end = [], 0
        # Digits of other scripts as the usual ones, one character for one, so that places stay the same.
        for match in pattern.finditer("".join(map(_digit, text))):
            if length := confirmed(match[0]):
                pieces += [text[end : match.start()], f"[{mark}]"]
                end = match.start() + length
                found[mark] += 1
        return "".join([*pieces, text[end:]])

    text = marked(_EMAIL, "e-mail", len, text)
    text = marked(_IBAN, "IBAN", _iban, text)
    text = marked(_CARD, "card", _card, text)
    text = marked(_PHONE, "phone", _phone, text)
    return text, dict(found)


def _digit(character: str) -> str:
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _card(number: str) -> int:
    """The length of a card number; 0 for what is none."""
    digits = [int(each) for each in number if each.isdigit()]
    doubled = [sum(divmod(2 * each, 10)) if place % 2 else each for place, each in enumerate(reversed(digits))]
    return len(number) if sum(doubled) % 10 == 0 and any(digits) else 0


def _iban(number: str) -> int:
    """The length of the IBAN at the beginning, before words that only look like a part of it; 0 where there is none."""
    ends = [len(number), *(place for place in range(len(number) - 1, 14, -1) if number[place] == " ")]
    return next((end for end in ends if _checks(number[:end].replace(" ", "").upper())), 0)


def _checks(joined: str) -> bool:
    return 15 <= len(joined) <= 34 and int("".join(str(int(each, 36)) for each in joined[4:] + joined[:4])) % 97 == 1


def _phone(number: str) -> int:
    return 0 if _DATE.fullmatch(number) else len(number)

"""The built-in redaction of personal data, used where the operator has configured none.

It finds e-mail addresses; card numbers of 13 to 19 digits that pass the Luhn check; IBANs that pass the ISO 7064 check;
and telephone numbers that start with +, 00 or 0, or are written as 555-123-4567 or (555) 123-4567. Digits of other
scripts count as digits. It does not find names, postal addresses, dates of birth, passwords, passport or customer
numbers, telephone numbers without a prefix, or anything that is spelled out or in a picture. So a person has to read
the result.
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
    """Replaces personal data by marks such as `[e-mail]`.

    Returns:
        The redacted text, and how many marks of each kind it has.
    """
    counts: Counter[str] = Counter()

    def replace(pattern: re.Pattern[str], mark: str, valid_length: Callable[[str], int], text: str) -> str:
        pieces, end = [], 0
        # Digits of other scripts are mapped to ASCII one character for one, so that positions stay the same.
        for match in pattern.finditer("".join(map(_to_ascii_digit, text))):
            if length := valid_length(match[0]):
                pieces += [text[end : match.start()], f"[{mark}]"]
                end = match.start() + length
                counts[mark] += 1
        return "".join([*pieces, text[end:]])

    text = replace(_EMAIL, "e-mail", len, text)
    text = replace(_IBAN, "IBAN", _iban_length, text)
    text = replace(_CARD, "card", _card_length, text)
    text = replace(_PHONE, "phone", _phone_length, text)
    return text, dict(counts)


def _to_ascii_digit(character: str) -> str:
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _card_length(number: str) -> int:
    """The length of a card number, by the Luhn check; 0 if it is not one."""
    digits = [int(char) for char in number if char.isdigit()]
    # From the right, every second digit counts twice, as the sum of its digits.
    weighted = [sum(divmod(2 * digit, 10)) if index % 2 else digit for index, digit in enumerate(reversed(digits))]
    return len(number) if sum(weighted) % 10 == 0 and any(digits) else 0


def _iban_length(number: str) -> int:
    """The length of the IBAN at the start, which words that look like part of it may follow; 0 if there is none."""
    ends = [len(number), *(index for index in range(len(number) - 1, 14, -1) if number[index] == " ")]
    return next((end for end in ends if _is_iban(number[:end].replace(" ", "").upper())), 0)


def _is_iban(compact: str) -> bool:
    # ISO 7064, MOD 97-10: country and check digits moved to the end, letters as numbers from 10 (A) to 35 (Z).
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1


def _phone_length(number: str) -> int:
    return 0 if _DATE.fullmatch(number) else len(number)

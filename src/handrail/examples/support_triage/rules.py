"""Triage without a model: keywords decide what a message is about, the desk's facts whether a refund is due.

The rules answer only what they recognise. They return None for a message that they cannot sort, or that is too long to
be one customer's question; a person then reads it.
"""

import re
from collections.abc import Iterable

from .desk import Desk, Order, Status
from .refund_policy import refund_due
from .triage import Category, Triage

_LONGEST = 2_000
"""Characters; a longer message is a thread or a log, where other people's words would count as the customer's."""


def _any_of(*stems: str) -> re.Pattern[str]:
    """Matches a word that starts with one of the stems; in Japanese and Arabic, a stem anywhere."""
    return re.compile("|".join(stem if ord(stem[0]) > 0x05FF else rf"\b{stem}" for stem in stems), re.IGNORECASE)


# In the order of policy.md: of the categories whose words occur, the first counts.
_TOPICS: dict[Category, re.Pattern[str]] = {
    "account": _any_of(
        "password", "log ?in", "logged in", "sign in", "my account", "newsletter", "unsubscribe", "personal data",
        "passwort", "anmelden", "mein konto", "meine daten", "mot de passe", "mon compte", "contraseña", "mi cuenta",
        "il mio account", "wachtwoord", "mijn account", "palavra-passe", "minha conta", "hasł", "moje konto", "şifre",
        "hesab", "パスワード", "كلمة المرور",
    ),
    "billing": _any_of(
        "charged", "charge ", "invoice", "receipt", "voucher", "payment",
        r"(charge|paid|pay|bill|debit|took|money|euro)\w*\b.{0,40}\b(twice|two times|double)", "my refund",
        "refund yet", "abgebucht", "belastet", "rechnung", "gutschein", "facture", "débité", "prélev", "cobr",
        "factura", "addebit", "fattura", "afgeschreven", "factuur", "fatura", "obciąż", "pobran", "faktur", "tahsil",
        "請求", "فاتورة",
    ),
    "cancel": _any_of("cancel", "stornier", "annul", "anul", "iptal", "キャンセル", "إلغاء"),
    "delivery": _any_of(
        "where( i|')?s (my|the|our) (order|parcel|package|delivery)", "parcel", "package", "deliver", "shipp",
        "tracking", "courier", r"(not|never|\w+n't) (here|come|came|arrive)", "paket", "liefer", "versand", "sendung",
        "angekommen", "colis", "livr", "expédi", "paquete", "envío", "llegado", "pacco", "spedi", "consegn", "arrivat",
        "pakket", "bezorg", "verzend", "aangekomen", "encomenda", "entreg", "chegar", "paczk", "przesyłk", "dostaw",
        "kargo", "teslim", "gelmedi", "届", "配送", "شحن", "شُحن", "الطرد",
    ),
    "return": _any_of(
        "return", "exchange", "sen[dt] ((it|them|this) )?back", "zurückgeben", "zurückschicken", "umtausch", "retour",
        "renvoyer", "échang", "devol", "devuel", "restitui", "terugst", "ruilen", "trocar", "zwróc", "iade", "返品",
        "إرجاع",
    ),
    "product": _any_of(
        "dishwasher", "material", "how (big|tall|wide|heavy)", "dimensions", "in stock", "warranty", "spülmaschine",
        "maße", "lave-vaisselle", "dimension", "medidas", "lavastoviglie", "misure", "vaatwasser", "afmeting",
        "garan[tzc]", "zmywar", "bulaşık",
    ),
    "complaint": _any_of(
        "rude", "worst", "terrible service", "awful", "unfreundlich", "frechheit", "unverschämt", "impoli",
        "vergüenza", "maleducat", "vergogna", "schandalig", "vergonha", "skandal", "rezalet",
    ),
}  # fmt: skip

_FAULTY = _any_of(
    "broken", "damaged", "crack", "smashed", "chipped", "faulty", "defect", "wrong (item|colou?r|size)",
    r"(part|piece|screw|lid)s? (is|are|was|were) missing", "doesn'?t work", "kaputt", "beschädigt", "zerbrochen",
    "zersprungen", "falsche", "cassé", "abîmé", "endommag", r"roto\b", r"rota\b", "faltan? (una?|dos|tres|pieza)",
    "dañad", "rotto", "danneggiat", "kapot", "beschadigd", "partid", "danificad", "uszkodz", "pęknię", "kırık", "割れ",
    "壊れ", "مكسور",
)  # fmt: skip

_PERSON_NEEDED = _any_of(
    "human", "real person", "manager", "supervisor", "(speak|talk) (to|with)", "(call|phone|ring) me", "lawyer",
    "solicitor", "legal action", r"court\b", "police", "trading standards", "ombudsman", "journalist", "newspaper",
    "injur", "hurt", "burn(t|ed)", "(on|caught|a) fire", "feuer", "spark", "shock", "bleed", "hospital", "suicid",
    r"(not|\w+n't) want to live", "hacked", "fraud", "stranger", "never ordered", "wasn'?t me", "iban",
    "(another|different|other) (account|card)", "anwalt", "gericht", "verbraucher", "mitarbeiter", "echten menschen",
    "rufen sie mich", "verletzt", "geschnitten", "stromschlag", "betrug", "avocat", "tribunal", "vraie personne",
    "responsable", "appelez-moi", "bless", "abogad", "denuncia", "una persona", "llám", "avvocato", "denunci",
    "operatore", "advocaat", "medewerker", "advogado", "prawnik", "avukat", "tüketici", "yetkili", "beni ara", "弁護士",
    "محام",
)  # fmt: skip

_MONEY_BACK = _any_of(
    "refund", "money back", "geld zurück", "erstatt", "rembours", "reembols", "dinero", "rimbors", "soldi",
    "geld terug", "terugbetal", "dinheiro", "zwrot", "para iade", "返金", "استرداد",
)  # fmt: skip

_BY_STATUS: dict[Status, Category] = {
    "shipped": "delivery", "lost": "delivery", "delivered": "return", "cancelled": "billing", "returned": "billing",
}  # fmt: skip
"""What a customer who only asks for money back probably means, by the status of the order."""

_REPLIES: dict[Category, str] = {
    "account": "Thank you for your message about your account. We are looking at it and will answer by e-mail.",
    "billing": "Thank you for your message. We are checking the charges and will answer by e-mail.",
    "cancel": "Thank you for your message. We are checking whether the order can still be stopped.",
    "delivery": "Thank you for your message. We are looking for your parcel and will write to you about it.",
    "return": "Thank you for your message. We will write to you about the next step for this article.",
    "product": "Thank you for your question. We will answer it by e-mail.",
    "complaint": "We are sorry about this. Thank you for telling us; we will look into it.",
    "other": "Thank you for your message. We will answer it by e-mail.",
}


def triage_by_rules(message: str, desk: Desk) -> Triage | None:
    """The triage of one message by keywords and the desk's facts; None if they are not enough."""
    text = _own_words(message)
    if len(text) > _LONGEST:
        return None
    orders = _named_orders(text, desk)
    if len(orders) > 1:
        return None
    order = orders[0] if orders else None
    faulty = bool(_FAULTY.search(text))
    escalate = bool(_PERSON_NEEDED.search(text))
    category = _category(text, order, faulty=faulty) or ("other" if escalate else None)
    if category is None:
        return None
    return Triage(
        category=category,
        order=order.number if order else None,
        refund=order is not None and refund_due(order, desk.list_charges(order.number), faulty=faulty),
        escalate=escalate,
        reply=_REPLIES[category],
    )


def _own_words(message: str) -> str:
    """The message without quoted lines, which other people wrote."""
    return "\n".join(line for line in message.splitlines() if not line.lstrip().startswith(">"))


def _category(text: str, order: Order | None, *, faulty: bool) -> Category | None:
    topic = next((category for category, words in _TOPICS.items() if words.search(text)), None)
    if topic == "cancel" and order and order.status == "cancelled":
        return "billing"
    # Messages about a broken article often mention its delivery; the reverse is rare.
    if faulty and topic in (None, "delivery", "product", "complaint"):
        return "return"
    if topic is None and order and _MONEY_BACK.search(text):
        return _BY_STATUS.get(order.status)
    return topic


def _named_orders(text: str, desk: Desk) -> list[Order]:
    """The orders that the text mentions, each once, in the order of mention."""
    numbers: Iterable[str] = dict.fromkeys(re.findall(r"(?<!\d)\d{4}(?!\d)", text))
    return [order for number in numbers if (order := desk.find_order(number))]

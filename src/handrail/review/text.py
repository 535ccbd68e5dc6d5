"""Text from people and models as every store can hold it."""


def storable(text: str | None) -> str | None:
    r"""Half a surrogate pair goes into no database, NUL not into Postgres: they are written as \udc80 and \x00."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")

"""Engines and addresses keep secrets out of messages."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from handrail.kernel.db.engine import describe_store, reading_engine, store_errors, store_url, writing_engine


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ann:sesame@localhost:1/db",
        "postgresql://localhost:1/db?user=ann&password=sesame",
        "postgresql://localhost:1/db?sslpassword=sesame&connect_timeout=1",
    ],
)
def test_an_address_is_shown_without_passwords(address: str, tmp_path: Path) -> None:
    """Neither the password of the user nor one that is a parameter is part of an error; the host is."""
    url = store_url(address, tmp_path)
    assert "sesame" not in describe_store(url)
    with pytest.raises(Exception, match="localhost:1/db") as failure, store_errors(url), writing_engine(url).connect():
        pass
    assert "sesame" not in str(failure.value)


def test_errors_show_no_parameters(tmp_path: Path) -> None:
    """The error of a failed statement says which statement, and not with which values."""
    writing = writing_engine(store_url("handrail.db", tmp_path))
    for engine in (writing, reading_engine(writing)):
        with pytest.raises(DBAPIError) as failure, engine.connect() as conn:
            conn.execute(text("INSERT INTO missing VALUES (:value)"), {"value": "sesame"})
        assert "INSERT INTO missing" in str(failure.value)
        assert "sesame" not in str(failure.value)
        engine.dispose()

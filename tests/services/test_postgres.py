import pydantic_ai
import pytest
from sqlalchemy import create_engine, inspect, text

from tests.services.postgres import Postgres


def test_store_is_real_and_empty(store_url: str) -> None:
    """`store_url` is the address of a real database without tables."""
    engine = create_engine(store_url)
    with engine.begin() as conn:
        assert inspect(conn).get_table_names() == []
        conn.execute(text("CREATE TABLE t (n integer)"))
        assert conn.execute(text("INSERT INTO t VALUES (7) RETURNING n")).scalar_one() == 7
    engine.dispose()


def test_databases_are_separate(postgres: Postgres) -> None:
    """Two databases of one server do not share tables, and are dropped even with a client still connected."""
    with postgres.database() as one, postgres.database() as other:
        engines = [create_engine(url) for url in (one, other)]
        with engines[0].begin() as conn:
            conn.execute(text("CREATE TABLE t (n integer)"))
        assert inspect(engines[1]).get_table_names() == []
    for engine in engines:
        engine.dispose()


async def test_model_requests_are_impossible() -> None:
    """An agent on a provider's model fails before anything leaves the machine."""
    agent = pydantic_ai.Agent("openai:gpt-5", defer_model_check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "none")
        with pytest.raises(RuntimeError, match="ALLOW_MODEL_REQUESTS"):
            await agent.run("hello")

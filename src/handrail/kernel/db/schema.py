"""The tables' one registry, and their version. SQLite is brought up to date on opening, Postgres by `handrail db
upgrade`.

The slices declare their tables on `metadata`; how they came to be is told, step by step, in `handrail.migrations`.
"""

from pathlib import Path

from sqlalchemy import URL, Connection, MetaData, inspect, text

from handrail.kernel.errors import StoreNewer, StoreOlder

from .engine import store_errors, writing_engine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010")
"""Every version of the tables, oldest first; the last is the one this code reads and writes."""


def ensure_current(url: URL) -> None:
    """Raises StoreNewer or StoreOlder unless the store has this code's tables; makes them so on SQLite."""
    if _version(url) == REVISIONS[-1]:
        return
    if url.get_backend_name() != "sqlite":
        raise StoreOlder(f"store {url.render_as_string()}: its tables are missing or old; run `handrail db upgrade`")
    upgrade(url)


def upgrade(url: URL) -> tuple[str | None, str]:
    """Brings the store's tables up to date, all steps or none. Returns the version before and after.

    Two processes may call it at once: the second waits for the first's transaction and then finds nothing to do.
    """
    before = _version(url)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = writing_engine(url)
    try:
        with store_errors(url), engine.connect() as conn:
            if conn.dialect.name == "sqlite":
                conn.exec_driver_sql("BEGIN IMMEDIATE")
            config.attributes["connection"] = conn
            command.upgrade(config, "head")
            if conn.dialect.name == "sqlite":
                conn.exec_driver_sql("COMMIT")
            else:
                conn.commit()
    finally:
        engine.dispose()
    return before, REVISIONS[-1]


def _version(url: URL) -> str | None:
    engine = writing_engine(url)
    try:
        with store_errors(url), engine.connect() as conn:
            found = _read_version(conn)
    finally:
        engine.dispose()
    if found is not None and found not in REVISIONS:
        raise StoreNewer(
            f"store {url.render_as_string()}: written by a later Handrail (tables {found}, this one knows "
            f"{REVISIONS[-1]}); upgrade Handrail, or name another store"
        )
    return found


def _read_version(conn: Connection) -> str | None:
    if not inspect(conn).has_table("alembic_version"):
        return None
    version: str | None = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return version

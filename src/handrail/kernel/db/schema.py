"""The registry of all tables, and their version. SQLite is brought up to date on opening, Postgres by `handrail db
upgrade`.

Each package declares its own tables on `metadata`; the migrations in `handrail.kernel.db.migrations` create them.
"""

from pathlib import Path

from sqlalchemy import URL, Connection, MetaData, inspect, text

from handrail.kernel.errors import StoreNewer, StoreOlder

from .engine import describe_store, store_errors, writing_engine
from .fork_gate import inside_store

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

REVISIONS = ("0001_initial",)
"""Every version of the tables, oldest first; the last is the one this code reads and writes."""


def ensure_current(url: URL) -> None:
    """Checks that the store has the tables that this code reads and writes; creates or updates them on SQLite.

    Args:
        url: The store.

    Raises:
        StoreOlder: If it is a Postgres store whose tables are missing or old.
        StoreNewer: If the tables are of a version that this code does not know.
    """
    if _version(url) == REVISIONS[-1]:
        return
    if url.get_backend_name() != "sqlite":
        raise StoreOlder(f"store {describe_store(url)}: its tables are missing or old; run `handrail db upgrade`")
    upgrade(url)


def upgrade(url: URL) -> tuple[str | None, str]:
    """Brings the store's tables up to date, all steps or none.

    Two processes may call it at once: the second waits for the first's transaction, and then has nothing to do.

    Args:
        url: The store.

    Returns:
        The version before, None for an empty store, and the version after.

    Raises:
        StoreNewer: If the tables are of a version that this code does not know.
    """
    before = _version(url)
    with inside_store(url):
        _migrate(url)
    return before, REVISIONS[-1]


def _migrate(url: URL) -> None:
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


def _version(url: URL) -> str | None:
    with inside_store(url):
        engine = writing_engine(url)
        try:
            with store_errors(url), engine.connect() as conn:
                version = _read_version(conn)
        finally:
            engine.dispose()
    if version is not None and version not in REVISIONS:
        raise StoreNewer(
            f"store {describe_store(url)}: its tables are of version {version}, and this Handrail knows "
            f"{REVISIONS[-1]}; upgrade Handrail if a later one wrote it, else name another store: one from before the "
            "first release cannot be read"
        )
    return version


def _read_version(conn: Connection) -> str | None:
    if not inspect(conn).has_table("alembic_version"):
        return None
    version: str | None = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return version

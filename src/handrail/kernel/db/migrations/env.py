"""Where Alembic starts: runs the migrations on the connection that `schema.py` opened, inside its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=False)
context.run_migrations()

"""SQLAlchemy over psycopg and asyncpg. Arguments: URL, a table's name, a mark for read statements."""
import asyncio
import sys

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

url, table, mark = sys.argv[1:4]


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = table
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(back_populates="author")


class Book(Base):
    __tablename__ = table + "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(sa.ForeignKey(table + ".id"))
    author: Mapped[Author] = relationship(back_populates="books")


engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), pool_pre_ping=True)
Base.metadata.create_all(engine)
assert set(sa.inspect(engine).get_table_names()) >= {table, table + "book"}
with Session(engine) as session:
    for i in range(20):
        session.add(Author(name=f"a{i}", books=[Book(title=f"b{j}") for j in range(3)]))
    session.commit()
    author = session.scalars(sa.select(Author).where(Author.name == "a7")).one()
    assert len(author.books) == 3
    author.name = "renamed"
    session.commit()
    assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 60
    session.execute(sa.delete(Book).where(Book.author_id == author.id))
    session.rollback()
    assert session.scalar(sa.select(sa.func.count()).select_from(Book)) == 60
    locked = session.scalars(sa.select(Author).where(Author.id == author.id).with_for_update()).one()
    assert locked.name == "renamed"
    with session.begin_nested():
        session.add(Author(name="nested"))
    session.commit()

print("ready", flush=True)
sys.stdin.readline()
# As a replica's engine is set up: transactions that only read.
readers = engine.execution_options(postgresql_readonly=True)
with readers.connect() as conn:
    for _ in range(5):
        assert conn.execute(sa.text(f"select count(*) from {table} /* {mark} */")).scalar() == 21
autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
with autocommit.connect() as conn:
    for i in range(20):
        found = conn.execute(sa.text(f"select name from {table} where id = :id /* {mark} */"), {"id": 1})
        assert found.scalar() == "a0"
engine.dispose()


async def asynchronous():
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    async with engine.begin() as conn:
        for i in range(10):
            found = await conn.execute(sa.select(Author.name).where(Author.id == 1))
            assert found.scalar() == "a0"
        await conn.execute(sa.insert(Author), [{"name": "x"}, {"name": "y"}])
    await engine.dispose()


asyncio.run(asynchronous())

"""asyncpg as people use it. Arguments: URL, a table's name, a mark for read statements."""
import asyncio
import sys

import asyncpg

url, table, mark = sys.argv[1:4]


async def main():
    conn = await asyncpg.connect(url)
    await conn.execute(f"create table {table} (id serial primary key, name text, tags text[], doc jsonb)")
    for i in range(10):
        row = await conn.fetchrow(
            f"insert into {table} (name, tags, doc) values ($1, $2, $3) returning id",
            f"n{i}", ["a", "b"], '{"x": 1}',
        )
        assert row["id"] == i + 1
    await conn.executemany(f"insert into {table} (name) values ($1)", [(f"m{i}",) for i in range(50)])
    print("ready", flush=True)
    sys.stdin.readline()
    statement = await conn.prepare(f"select name, tags from {table} where id = $1 /* {mark} */")
    for _ in range(20):
        assert (await statement.fetchrow(1))["tags"] == ["a", "b"]
    try:
        async with conn.transaction():
            await conn.execute(f"delete from {table}")
            raise KeyError
    except KeyError:
        pass
    async with conn.transaction():
        try:
            async with conn.transaction():
                await conn.fetch("select 1/0")
        except asyncpg.DivisionByZeroError:
            pass
        seen = 0
        async for _ in conn.cursor(f"select * from {table}", prefetch=7):
            seen += 1
        assert seen == 60
    async with conn.transaction(readonly=True, isolation="repeatable_read"):
        assert await conn.fetchval(f"select count(*) from {table} /* {mark} */") == 60
    async with conn.transaction(isolation="serializable", readonly=True, deferrable=True):
        assert await conn.fetchval(f"select count(*) from {table}") == 60
    await conn.copy_records_to_table(table, records=[(f"c{i}",) for i in range(100)], columns=["name"])
    parts = []

    async def take(part):
        parts.append(part)

    await conn.copy_from_query(f"select name from {table} where name like 'c%'", output=take)
    assert b"".join(parts).count(b"\n") == 100

    heard = asyncio.get_running_loop().create_future()
    await conn.add_listener(table, lambda *notification: heard.set_result(notification[3]))
    other = await asyncpg.connect(url, server_settings={"application_name": "other", "timezone": "Asia/Tokyo"})
    await other.execute(f"notify {table}, 'hello'")
    assert await asyncio.wait_for(heard, 20) == "hello"
    assert await other.fetchval("show timezone") == "Asia/Tokyo"
    try:
        await asyncio.wait_for(other.fetch("select pg_sleep(30)"), 0.3)
    except asyncio.TimeoutError:
        pass
    assert await other.fetchval("select 7") == 7
    await other.close()
    await conn.close()

    # Its pool resets a connection each time it is given back.
    async with asyncpg.create_pool(url, min_size=2, max_size=5) as pool:
        async def work(i):
            async with pool.acquire() as conn:
                await conn.execute(f"set work_mem = '{i + 64}kB'")
                return await conn.fetchval(f"select name from {table} where id = $1", i % 10 + 1)

        names = await asyncio.gather(*(work(i) for i in range(60)))
        assert names[3] == "n3"


asyncio.run(main())

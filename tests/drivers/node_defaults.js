// node-postgres as people use it. Arguments: URL, a table's name, a mark for read statements.
const assert = require("assert");
const { once } = require("events");
const { Client, Pool } = require("pg");
const Cursor = require("pg-cursor");

const [url, table, mark] = process.argv.slice(2);

async function main() {
  const pool = new Pool({ connectionString: url, max: 5 });
  await pool.query(`create table ${table} (id serial primary key, name text, doc jsonb)`);
  for (let i = 0; i < 10; i++) {
    const made = await pool.query(
      `insert into ${table} (name, doc) values ($1, $2) returning id`, [`n${i}`, { i }]);
    assert.strictEqual(made.rows[0].id, i + 1);
  }
  console.log("ready");
  await once(process.stdin, "data");
  process.stdin.pause();
  // A named statement is prepared once on each client.
  const named = { name: "by-id", text: `select name, doc from ${table} where id = $1 /* ${mark} */` };
  const reads = Array.from({ length: 100 }, (_, i) => pool.query({ ...named, values: [i % 10 + 1] }));
  (await Promise.all(reads)).forEach((found, i) => assert.strictEqual(found.rows[0].name, `n${i % 10}`));
  const several = await pool.query("select 1 as a; select 2 as b");
  assert.deepStrictEqual(several.map((found) => found.rows[0]), [{ a: 1 }, { b: 2 }]);

  const client = await pool.connect();
  await client.query("BEGIN");
  await client.query(`delete from ${table}`);
  await client.query("ROLLBACK");
  await client.query("BEGIN READ ONLY");
  assert.strictEqual((await client.query(`select count(*)::int as n from ${table} /* ${mark} */`)).rows[0].n, 10);
  await client.query("COMMIT");
  // Portals that are read in pieces, in a transaction and in one that only the unfinished request is.
  for (const around of [["BEGIN", "COMMIT"], []]) {
    if (around.length) await client.query(around[0]);
    const cursor = client.query(new Cursor(`select n from generate_series(1, $1) n /* ${mark} */`, [25]));
    let rows, seen = 0;
    while ((rows = await cursor.read(10)).length) seen += rows.length;
    await cursor.close();
    assert.strictEqual(seen, 25);
    if (around.length) await client.query(around[1]);
  }
  await assert.rejects(client.query("select 1/0"), { code: "22012" });
  await assert.rejects(client.query("select $1::int / 0", [1]), { code: "22012" });
  client.release();

  const listener = new Client(url);
  await listener.connect();
  const heard = new Promise((resolve) => listener.on("notification", resolve));
  await listener.query(`listen ${table}`);
  await pool.query("select pg_notify($1, $2)", [table, "hello"]);
  assert.strictEqual((await heard).payload, "hello");
  await listener.end();
  await pool.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

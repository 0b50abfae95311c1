// Prisma through its adapter for node-postgres. Arguments: URL, a table's name, a mark for read statements.
import assert from "node:assert";
import { once } from "node:events";
import { PrismaPg } from "@prisma/adapter-pg";
import { PrismaClient } from "./gen/client";

const [url, table, mark] = process.argv.slice(2);

async function main() {
  const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: url, max: 5 }) });
  for (const sql of [
    `drop table if exists prisma_posts, prisma_users`,
    `create table prisma_users (id serial primary key, email text unique not null)`,
    `create table prisma_posts (id serial primary key, title text not null,
       "userId" int not null references prisma_users on delete cascade)`,
    `create table ${table} (a int)`,
  ]) await prisma.$executeRawUnsafe(sql);
  for (let i = 0; i < 10; i++) {
    const posts = { create: [{ title: `a${i}` }, { title: `b${i}` }] };
    await prisma.user.create({ data: { email: `u${i}`, posts } });
  }
  const all = await prisma.user.findMany({ include: { posts: true }, orderBy: { id: "asc" } });
  assert.deepStrictEqual(all.map((user) => user.posts.length), Array(10).fill(2));
  console.log("ready");
  await once(process.stdin, "data");
  process.stdin.pause();
  await Promise.all(Array.from({ length: 100 }, async (_, i) => {
    const user = await prisma.user.findUnique({ where: { email: `u${i % 10}` }, include: { posts: true } });
    assert.strictEqual(user!.posts.length, 2);
    const rows = await prisma.$queryRawUnsafe(`select count(*)::int as n from prisma_users /* ${mark} */`);
    assert.deepStrictEqual(rows, [{ n: 10 }]);
  }));
  await prisma.$transaction(async (tx) => {
    await tx.user.update({ where: { email: "u1" }, data: { email: "z" } });
    assert.strictEqual(await tx.user.count({ where: { email: "z" } }), 1);
  });
  assert.ok(await prisma.user.findFirst({ where: { email: "z" } }));
  await assert.rejects(prisma.$transaction(async (tx) => {
    await tx.user.deleteMany();
    throw new Error("rolled back");
  }), /rolled back/);
  await assert.rejects(prisma.user.create({ data: { email: "u2" } }), { code: "P2002" });
  assert.deepStrictEqual(await prisma.$transaction([prisma.user.count(), prisma.post.count()]), [10, 20]);
  const update = { posts: { create: { title: "c" } } };
  await prisma.user.upsert({ where: { email: "u2" }, update, create: { email: "never" } });
  assert.strictEqual((await prisma.post.groupBy({ by: ["userId"], _count: true })).length, 10);
  await prisma.user.delete({ where: { email: "u2" } });
  assert.strictEqual(await prisma.post.count(), 18);
  await prisma.$executeRawUnsafe(`drop table prisma_posts, prisma_users`);
  await prisma.$disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

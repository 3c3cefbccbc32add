#!/usr/bin/env bash
# Backs MySQL up while it runs, and believes no dump that it has not restored.
#
#   ./backup_mysql.sh                         a new backup: nightjar-<UTC>.tar.gz and its .sha256
#   ./backup_mysql.sh verify FILE             restores FILE into a throw-away server and compares
#   ./backup_mysql.sh restore FILE [--over]   verifies FILE, then restores it; --over: over what is there, which is
#                                             backed up before
#   ./backup_mysql.sh backup_mysql REQUEST ANSWER   as a task of the night: JSON in, JSON out
#
# By hand, beside docker-compose.yml, it runs itself in its container.  With NIGHTJAR_MYSQL_HOST set it runs where it is
# and needs mysqldump, mysql and mysqld.  Order: dump, check, restore into a throw-away server, compare, rename, rotate.
#
# Exit codes: 64 usage · 65 damaged archive or cut dump · 66 no such file · 69 a tool is missing or older than the server
# 70 the restored copy differs or cannot be made (.suspect) · 73 the target is not empty · 74 cannot write, disk full
# 75 no connection, or it was cut (worth a retry) · 77 access denied
set -euo pipefail
export LC_ALL=C

say() { echo "backup: $*" >&2; }
die() { code=$1; shift; say "$*"; exit "$code"; }

if [ -z "${NIGHTJAR_MYSQL_HOST:-}" ]; then # on a person's machine: the tools are in the image
    cd "$(dirname "$0")"
    mount=()
    if [ "$#" -ge 2 ] && [ -f "$2" ]; then # a file of this machine, not one of the backup volume
        mount=(-v "$(cd "$(dirname "$2")" && pwd):/given:ro")
        set -- "$1" "/given/$(basename "$2")" "${@:3}"
    fi
    exec docker compose --profile tools run --rm -T ${mount[@]+"${mount[@]}"} mysql-backup "$@"
fi
if [ $$ -eq 1 ]; then # the first process of a container gets no signal that it has no handler for
    trap 'exit 143' TERM INT
    "$0" "$@" &
    wait $! && exit 0 || exit $?
fi

HOST=$NIGHTJAR_MYSQL_HOST PORT=${NIGHTJAR_MYSQL_PORT:-3306}
SECRETS=${NIGHTJAR_SECRETS:-/run/secrets}
[ ! -d /scratch/secrets ] || SECRETS=/scratch/secrets # as a task of the night
BACKUP=${NIGHTJAR_BACKUP:-backup}
DATABASES=${NIGHTJAR_BACKUP_DATABASES:-mlflow nightjar}
DAILY=${NIGHTJAR_BACKUP_DAILY:-7} WEEKLY=${NIGHTJAR_BACKUP_WEEKLY:-4}
MEMORY=${NIGHTJAR_BACKUP_BUFFER:-128M} # of the throw-away server
WORK=
SERVER=
PARTIAL=

tidy() {
    code=$?
    [ -z "$SERVER" ] || { kill -KILL "$SERVER" && wait "$SERVER"; } 2> /dev/null || :
    [ -z "$WORK" ] || rm -rf "$WORK"
    [ -z "$PARTIAL" ] || rm -f "$PARTIAL"
    exit "$code"
}
trap tidy EXIT

# options USER SECRET: a file of the client's options; a password in argv would be in every list of processes.
options() {
    [ -r "$SECRETS/$2" ] || die 77 "$SECRETS/$2 cannot be read: expected a file with the password of MySQL's user $1"
    (umask 077 && printf '[client]\nuser=%s\npassword="%s"\nhost=%s\nport=%s\n[mysql]\nconnect_timeout=10\n' \
        "$1" "$(cat "$SECRETS/$2")" "$HOST" "$PORT" > "$WORK/$1.cnf")
}
ask() { run_client "$WORK/backup.cnf" mysql --batch --skip-column-names -e "$1"; }

# run_client OPTIONS TOOL ARGUMENTS…: says what the server answered, with an exit code of ours.
run_client() {
    local options=$1 tool=$2 code=0
    shift 2
    "$tool" --defaults-file="$options" "$@" 2> "$WORK/errors" || code=$?
    [ "$code" -ne 0 ] || return 0
    local why
    why=$(tail -n 1 "$WORK/errors")
    case $why in
        *"Access denied"* | *"(1044)"* | *"(1045)"*) say "$HOST:$PORT: $why; is it the right secret?" && return 77 ;;
        *"No space left"* | *"rrcode: 28"* | *"rrno 28"* | *" is full"*) say "$tool: $why; make room" && return 74 ;;
        *"(2002)"* | *"(2003)"* | *"(2005)"* | *"(2006)"* | *"(2013)"* | *"ost connection"* | *"gone away"* | *"an't connect"* | *"nknown MySQL server host"* | *"(1053)"*)
            say "$HOST:$PORT does not answer, or no more: $why" && return 75 ;;
        *) say "$tool ended with $code: $why" && return 70 ;;
    esac
}

# room PLACE: there is some; where there is next to none, what a file that was cut makes the tools say is beside the point.
room() { [ "$(df -Pk "$1" | awk 'END {print $4}')" -gt 16384 ]; }

newer() { [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | tail -n 1)" = "$1" ]; }
release() { sed -n 's/.*[^0-9]\([0-9][0-9]*\.[0-9][0-9]*\)\.[0-9].*/\1/p;q'; }

prepare() {
    for tool in mysqldump mysql mysqld tar gzip sha256sum; do
        command -v "$tool" > /dev/null || die 69 "$tool is not here; use the image mysql-backup, or install MySQL's own tools"
    done
    { mkdir -p "$BACKUP" 2> /dev/null && [ -w "$BACKUP" ]; } || die 74 "cannot write to $BACKUP; it belongs to another user?"
    WORK=$(mktemp -d) || die 74 "cannot write to ${TMPDIR:-/tmp}"
    room "$WORK" || die 74 "no room in $WORK: expected that of the dump and of a copy of the databases; make some"
    options backup mysql_backup
    VERSION=$(ask "SELECT version()") || exit $?
    TOOL=$(mysqldump --version | release)
    ! newer "$(echo " $VERSION" | release)" "$TOOL" ||
        die 69 "mysqldump $TOOL is older than the server, $VERSION: its dump may lack what it does not know; use the server's"
}

# measure OPTIONS: database, table, rows, checksum; a line a table, tabs between.
measure() {
    local list tables database table
    list=$(printf "'%s'," $DATABASES)
    run_client "$1" mysql --batch --skip-column-names -e "SELECT table_schema, table_name FROM information_schema.tables
        WHERE table_type = 'BASE TABLE' AND table_schema IN (${list%,}) ORDER BY 1, 2" > "$WORK/tables" || return $?
    while IFS=$'\t' read -r database table; do
        printf "SELECT '%s', '%s', count(*) FROM \`%s\`.\`%s\`; CHECKSUM TABLE \`%s\`.\`%s\` EXTENDED;\n" \
            "$database" "$table" "$database" "$table" "$database" "$table"
    done < "$WORK/tables" > "$WORK/measure.sql"
    run_client "$1" mysql --batch --skip-column-names < "$WORK/measure.sql" > "$WORK/measured" || return $?
    paste - - < "$WORK/measured" | cut -f 1,2,3,5
}

dump() {
    run_client "$WORK/backup.cnf" mysqldump --single-transaction --quick --routines --triggers --events \
        --no-tablespaces --set-gtid-purged=OFF --hex-blob --databases $DATABASES > "$WORK/dump.sql" || {
        code=$?
        room "$WORK" || die 74 "no room in $WORK for the dump"
        return $code
    }
    complete "$WORK/dump.sql" || die 65 "the dump is cut: it does not end with '-- Dump completed' ($(wc -c < "$WORK/dump.sql") bytes)"
}
complete() { tail -c 200 "$1" | grep -q '^-- Dump completed'; }

# The manifest: one JSON document; a table that was written during the dump has no checksum to hold it to.
manifest() {
    printf '{\n "server": "%s",\n "tool": "%s",\n "made": "%s",\n "dump_bytes": %s,\n "dump_sha256": "%s",\n "tables": [' \
        "$VERSION" "$TOOL" "$1" "$(wc -c < "$WORK/dump.sql")" "$(sha256sum < "$WORK/dump.sql" | cut -d ' ' -f 1)"
    awk -F '\t' 'NR == FNR {before[$1 FS $2] = $3 FS $4; next}
        {still = before[$1 FS $2] == $3 FS $4
         printf "%s\n  {\"database\": \"%s\", \"table\": \"%s\", \"still\": %s, \"rows\": %s, \"checksum\": %s}",
                separator, $1, $2, still ? "true" : "false", $3, $4; separator = ","}' "$WORK/before" "$WORK/after"
    printf '\n ]\n}\n'
}

# throw_away: an empty server of our own, on a socket in WORK and nowhere else.
throw_away() {
    local base=(--no-defaults --datadir="$WORK/data" --socket="$WORK/s" --pid-file="$WORK/pid" --skip-networking --mysqlx=OFF
        --disable-log-bin --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=OFF --innodb-buffer-pool-size="$MEMORY"
        --performance-schema=OFF --innodb-redo-log-capacity=64M --tmpdir="$WORK" --secure-file-priv=NULL
        ${NIGHTJAR_MYSQLD_ARGS:-})
    mysqld "${base[@]}" --initialize-insecure > "$WORK/server.log" 2>&1 || { why=$(tail -n 1 "$WORK/server.log"); return 1; }
    mysqld "${base[@]}" >> "$WORK/server.log" 2>&1 &
    SERVER=$!
    printf '[client]\nuser=root\nsocket=%s\n' "$WORK/s" > "$WORK/own.cnf"
    for _ in $(seq 240); do
        mysql --defaults-file="$WORK/own.cnf" -e 'SELECT 1' > /dev/null 2>&1 && return 0
        kill -0 "$SERVER" 2> /dev/null || break
        sleep 0.25
    done
    why=$(tail -n 1 "$WORK/server.log")
    return 1
}
throw_away_ends() {
    [ -z "$SERVER" ] || { kill "$SERVER" && wait "$SERVER"; } || :
    SERVER=
    rm -rf "$WORK/data"
}
not_proven() {
    room "$WORK" || die 74 "no room in $WORK for the copy that a dump has to prove itself by: $why"
    throw_away_ends
}

# proven ARCHIVE: restored into a throw-away server it has the tables, rows and checksums of its manifest.  Else: why.
proven() {
    why="it is no archive of a dump and a manifest"
    tar -xzOf "$1" manifest.json > "$WORK/manifest.json" 2> /dev/null || return 1
    awk -F '[":, {}]+' '/"still"/ {print $3 "\t" $5 "\t" $7 "\t" $9 "\t" $11}' "$WORK/manifest.json" | sort > "$WORK/promised"
    throw_away || { why="the throw-away server did not start: $why"; not_proven; return 1; }
    why="MySQL refused to restore it"
    tar -xzOf "$1" dump.sql | mysql --defaults-file="$WORK/own.cnf" 2> "$WORK/errors" ||
        { why="$why: $(tail -n 1 "$WORK/errors")"; not_proven; return 1; }
    measure "$WORK/own.cnf" | sort > "$WORK/restored" || { not_proven; return 1; }
    throw_away_ends
    why=$(awk -F '\t' 'NR == FNR {rows[$1 "." $2] = $3; sum[$1 "." $2] = $4; next}
        !(($1 "." $2) in rows) {print "table " $1 "." $2 " is missing"; exit}
        $3 == "true" && (rows[$1 "." $2] != $4 || sum[$1 "." $2] != $5) {
            print "table " $1 "." $2 " has " rows[$1 "." $2] " rows and checksum " sum[$1 "." $2] ", expected " $4 " and " $5; exit}
        ' "$WORK/restored" "$WORK/promised")
    [ -z "$why" ]
}

# checked FILE: it is there, and its bytes are those that were written.
checked() {
    FILE=$1
    [ -f "$FILE" ] || FILE=$BACKUP/$1
    [ -f "$FILE" ] || die 66 "there is no $1, nor $BACKUP/$1, or user $(id -u) may not look into its folder; there are: $(ls "$BACKUP" 2> /dev/null | grep 'tar.gz$' | tr '\n' ' ')"
    if [ -f "$FILE.sha256" ]; then
        [ "$(cut -d ' ' -f 1 "$FILE.sha256")" = "$(sha256sum < "$FILE" | cut -d ' ' -f 1)" ] ||
            die 65 "$FILE is not what was written: its sha256 is another than $FILE.sha256 says"
    fi
    gzip -t "$FILE" 2> /dev/null || die 65 "$FILE is damaged: it is no whole gzip archive"
}

# One a day for DAILY days, one a week for WEEKLY weeks, the newest of each, and all of the newest day; the others go.
rotate() {
    local file stamp day week newest= days=" " weeks=" " n=0 m=0
    while read -r file; do
        stamp=${file#nightjar-} day=${stamp%%T*}
        week=$(date -u -d "$day" +%G-%V)
        newest=${newest:-$day} keep=
        [ "$day" != "$newest" ] || keep=1
        case $days in *" $day "*) ;; *) [ "$n" -ge "$DAILY" ] || { keep=1 n=$((n + 1)) days="$days$day "; } ;; esac
        case $weeks in *" $week "*) ;; *) [ "$m" -ge "$WEEKLY" ] || { keep=1 m=$((m + 1)) weeks="$weeks$week "; } ;; esac
        [ -n "$keep" ] || { say "rotated out: $file" && rm -f "$BACKUP/$file" "$BACKUP/$file.sha256"; }
    done < <(ls "$BACKUP" | grep -E '^nightjar-[0-9]{8}T[0-9]{6}Z\.tar\.gz$' | sort -r)
}

backup() {
    local began made name
    began=$(date +%s) made=$(date -u +%Y%m%dT%H%M%SZ)
    name=nightjar-$made${1:-}.tar.gz
    PARTIAL=$BACKUP/$name.partial
    find "$BACKUP" -maxdepth 1 -name '*.partial' -mtime +0 -delete # of a backup that was killed; a younger one may be at work
    measure "$WORK/backup.cnf" > "$WORK/before" || exit $?
    [ -s "$WORK/before" ] || die 65 "there is no table in $DATABASES at $HOST:$PORT: nothing was dumped"
    dump || exit $?
    measure "$WORK/backup.cnf" > "$WORK/after" || exit $?
    manifest "$made" > "$WORK/manifest.json"
    say "dumped $DATABASES of MySQL $VERSION: $(wc -l < "$WORK/after") tables, $(wc -c < "$WORK/dump.sql") bytes, $(($(date +%s) - began)) s"
    tar -C "$WORK" -c manifest.json dump.sql 2> "$WORK/errors" | gzip -1 2>> "$WORK/errors" > "$PARTIAL" ||
        die 74 "cannot write $PARTIAL: $(tail -n 1 "$WORK/errors")"
    rm -f "$WORK/dump.sql"
    proven "$PARTIAL" || {
        mv "$PARTIAL" "$BACKUP/$name.suspect"
        die 70 "$name is not good: $why; set aside as $BACKUP/$name.suspect, the older ones stay as they are"
    }
    SUM=$(sha256sum < "$PARTIAL" | cut -d ' ' -f 1)
    sync "$PARTIAL" 2> /dev/null || sync
    { printf '%s  %s\n' "$SUM" "$name" > "$BACKUP/$name.sha256" && mv "$PARTIAL" "$BACKUP/$name"; } 2> "$WORK/errors" ||
        { rm -f "$BACKUP/$name.sha256"; die 74 "cannot write to $BACKUP: $(tail -n 1 "$WORK/errors")"; }
    NAME=$name SIZE=$(wc -c < "$BACKUP/$name")
    say "restored into a throw-away server, counts and checksums agree: $BACKUP/$NAME, $SIZE bytes, $(($(date +%s) - began)) s"
}

restore() {
    local over=${2:-} database found=0
    [ -z "$over" ] || [ "$over" = --over ] || die 64 "restore FILE [--over], got $over"
    options root mysql_root
    checked "$1"
    proven "$FILE" || die 70 "$FILE is not good: $why; nothing was changed"
    cp "$WORK/restored" "$WORK/wanted" # the backup of what is there measures anew
    measure "$WORK/backup.cnf" > "$WORK/there" || exit $?
    found=$(awk -F '\t' '$3 > 0' "$WORK/there" | wc -l)
    if [ "$found" -gt 0 ]; then
        [ -n "$over" ] || die 73 "$found tables at $HOST:$PORT have rows: use an empty server, or --over (make restore OVER=1), which makes a backup first"
        say "first a backup of what is there; if it is so broken that it cannot be dumped, drop the databases, then restore"
        backup -before-restore
    fi
    for database in $DATABASES; do echo "DROP DATABASE IF EXISTS \`$database\`;"; done | run_client "$WORK/root.cnf" mysql
    tar -xzOf "$FILE" dump.sql | run_client "$WORK/root.cnf" mysql || die 70 "cut while restoring $FILE: restore again, with --over"
    measure "$WORK/root.cnf" | sort > "$WORK/now"
    cmp -s "$WORK/now" "$WORK/wanted" || die 70 "after restoring, tables differ from $FILE: is somebody writing? $(diff "$WORK/now" "$WORK/wanted" | head -n 2 | tr '\n' ' ')"
    say "restored $FILE: $(wc -l < "$WORK/now") tables, counts and checksums agree"
}

answer() {
    printf '{"uri": "file://%s/%s", "digest": "sha256:%s", "size": %s, "night": "", "as_of": 0, "file": "%s"}' \
        "$BACKUP" "$NAME" "$SUM" "$SIZE" "$NAME" > "$1.partial"
    mv "$1.partial" "$1"
}

usage() { [ "$1" -eq "$2" ] || die 64 "expected $3, got $1 words; the head of this file has all forms"; }

verb=${1:-backup} # no && below: `set -e` does not look into a function that is called in a condition
case $verb in
    backup) usage $(($# > 1)) 0 "no word" ;;
    backup_mysql) usage $# 3 "backup_mysql REQUEST ANSWER" ;;
    verify) usage $# 2 "verify FILE" ;;
    restore) usage $(($# == 2 || $# == 3)) 1 "restore FILE [--over]" ;;
    *) die 64 "$verb: expected nothing, verify FILE, or restore FILE [--over]" ;;
esac
prepare
case $verb in
    backup | backup_mysql)
        backup
        rotate
        [ "$verb" = backup ] || answer "$3"
        ;;
    verify)
        checked "$2"
        proven "$FILE" || die 70 "$FILE is not good: $why"
        say "$FILE is good: restored into a throw-away server, counts and checksums agree"
        ;;
    restore) restore "$2" "${3:-}" ;;
esac

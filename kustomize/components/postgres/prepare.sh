#!/bin/bash
# What the init container of jellyfin-postgres runs before each start of the
# server. In place of the image's own entrypoint, which takes a directory that a
# power cut left half made for a database, makes Jellyfin's role a superuser, and
# never looks at the Secret again.
set -Eeuo pipefail
here=$(dirname "$0")
for name in JELLYFIN_USERNAME JELLYFIN_PASSWORD JELLYFIN_DATABASE; do
  [[ -n ${!name} ]] || { echo "$name is empty: the Secret jellyfin-database must have username, password and database" >&2; exit 1; }
done
sockets=${SOCKETS:-/var/run/postgresql}

if [[ ! -s $PGDATA/PG_VERSION ]]; then
  # A database gets its name when it is whole.
  rm -rf "$PGDATA.new"
  mkdir -p "$(dirname "$PGDATA")"
  # shellcheck disable=SC2086 # options are words
  initdb --pgdata="$PGDATA.new" --username=postgres --auth=reject --encoding=UTF8 ${INITDB_OPTIONS:-}
  mv -T "$PGDATA.new" "$PGDATA"
  sync
fi

# On the socket alone, to nobody but this container's user.
pg_ctl --pgdata="$PGDATA" --wait --timeout=3600 --silent \
  --options="-c listen_addresses= -c unix_socket_directories=$sockets -c hba_file=$here/pg_hba.conf" start
trap 'pg_ctl --pgdata="$PGDATA" --wait --mode=fast --silent stop' EXIT
psql --host="$sockets" --username=postgres --dbname=postgres --no-password --no-psqlrc --quiet \
  --set=ON_ERROR_STOP=1 --file="$here/role.sql"

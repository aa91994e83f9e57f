#!/bin/sh
# Stands for the entry points of the official images: what tests use of them, and no more.
set -eu

# Runs a program as the user of the server, in place of this script.
become() {
  user=$1
  shift
  exec setpriv --reuid="$user" --regid="$user" --init-groups -- "$@"
}

as_postgres() {
  setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
}

init_postgres() {
  if [ -z "${POSTGRES_PASSWORD:-}" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
    echo 'set POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust' >&2
    exit 1
  fi
  install --directory --owner=postgres --group=postgres --mode=700 "$PGDATA"
  password=$(mktemp)
  printf '%s\n' "${POSTGRES_PASSWORD:-unused}" >"$password"
  chown postgres "$password"
  as_postgres initdb --username="$POSTGRES_USER" --pwfile="$password" --auth-local=trust --no-sync >/dev/null
  rm "$password"
  echo "host all all all ${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"
  # Reachable from inside only. It logs to the standard output, where those who wait for the second start look first.
  as_postgres pg_ctl start --wait --options="-c listen_addresses= -c fsync=off"
  if [ "$POSTGRES_DB" != postgres ]; then
    as_postgres createdb --username="$POSTGRES_USER" --maintenance-db=postgres "$POSTGRES_DB"
  fi
  as_postgres pg_ctl stop --wait --mode=fast
  echo 'PostgreSQL init process complete; ready for start up.'
}

case "${1:-}" in
redis-server | valkey-server)
  mkdir -p /data
  chown "${1%-server}" /data
  cd /data
  # As in the official images: who connects comes from outside of the container.
  become "${1%-server}" "$@" --protected-mode no
  ;;
postgres)
  export PGDATA="${PGDATA:-/var/lib/postgresql/data}"
  POSTGRES_USER=${POSTGRES_USER:-postgres}
  POSTGRES_DB=${POSTGRES_DB:-$POSTGRES_USER}
  if [ ! -s "$PGDATA/PG_VERSION" ]; then
    init_postgres
  fi
  become postgres "$@" -c listen_addresses='*'
  ;;
*)
  exec "$@"
  ;;
esac

#!/bin/sh
# Makes the lead's account if there is none, then serves the studio. Started again, it changes nothing.
#
#   HARKEN_DB             database: a file, or postgresql://… (default /data/feedback.db)
#   HARKEN_LEAD           name of the first lead (default lead)
#   HARKEN_PASSWORD_FILE  file whose first line is that lead's first password (10 characters or more)
#   HARKEN_NAME           host name that browsers use, behind a proxy with TLS
#   HARKEN_HOST, HARKEN_PORT   where to listen (default 0.0.0.0 and 8765)
set -eu
db=${HARKEN_DB:-/data/feedback.db}
lead=${HARKEN_LEAD:-lead}
if ! harken users list --db "$db" 2>/dev/null | grep -qw "lead"; then
  : "${HARKEN_PASSWORD_FILE:?name a file with the first lead\'s password}"
  harken users add "$lead" --role lead --password-file "$HARKEN_PASSWORD_FILE" --db "$db"
fi
set -- --db "$db" --host "${HARKEN_HOST:-0.0.0.0}" --port "${HARKEN_PORT:-8765}" "$@"
if [ -n "${HARKEN_NAME:-}" ]; then
  set -- "$@" --public-name "$HARKEN_NAME"
fi
exec harken studio "$@"

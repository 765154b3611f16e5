#!/bin/sh
# Start Valkey with the password that the secret redis_url names, and the arguments given.
# The password goes into a file: everyone on the host can read a process's arguments.
set -eu
umask 077
sed -n 's|^redis://:\([^@]*\)@.*|requirepass \1|p' /run/secrets/redis_url > /tmp/password.conf
if [ ! -s /tmp/password.conf ]; then
    echo "the secret redis_url has no password: redis://:PASSWORD@redis:6379/0 is expected" >&2
    exit 1
fi
exec valkey-server /tmp/password.conf --dir /data --appendonly yes --appendfsync everysec --save "" \
    --maxmemory-policy noeviction "$@"

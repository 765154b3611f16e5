#!/bin/sh
# Put the backup on standard input in the place of what is in /data, while no server runs there.
# What was there stays in /data/before-restore. Nothing changes unless the backup can be read.
set -eu
new=/data/restoring
socket=/tmp/restore.sock
rm -rf "$new"
mkdir "$new"
cat > "$new/dump.rdb"

# A server with an append-only file does not read dump.rdb: it starts without one, then writes it.
valkey-server --port 0 --unixsocket "$socket" --dir "$new" --appendonly no --save "" >&2 &
server=$!
until valkey-cli -s "$socket" ping 2>/dev/null | grep -q PONG; do
    kill -0 "$server" 2>/dev/null || { echo "the backup cannot be read: nothing has changed" >&2; exit 1; }
    sleep 0.1
done
valkey-cli -s "$socket" config set appendonly yes > /dev/null
until valkey-cli -s "$socket" info persistence | grep -q '^aof_rewrite_in_progress:0'; do
    sleep 0.1
done
keys=$(valkey-cli -s "$socket" dbsize)
valkey-cli -s "$socket" shutdown nosave > /dev/null
wait "$server"

rm -rf /data/before-restore
mkdir /data/before-restore
[ ! -e /data/appendonlydir ] || mv /data/appendonlydir /data/before-restore/
mv "$new/appendonlydir" /data/
rm -rf "$new"
echo "restored $keys keys"

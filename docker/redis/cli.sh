#!/bin/sh
# Valkey's command line, with the password of the server that start.sh started.
set -eu
REDISCLI_AUTH=$(cut -d' ' -f2 /tmp/password.conf)
export REDISCLI_AUTH
exec valkey-cli "$@"

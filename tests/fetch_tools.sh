#!/bin/sh
# Put promtool, amtool and redis-cli of Debian's packages into FOLDER/bin, without installing them.
#   tests/fetch_tools.sh FOLDER
set -eu
folder=$(mkdir -p "$1/bin" && cd "$1" && pwd)
if ! command -v apt-get > /dev/null; then
    echo "promtool, amtool and redis-cli are not fetched: there is no apt-get here" >&2
    exit 0
fi
packages="prometheus prometheus-alertmanager redis-tools libjemalloc2 liblzf1"
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
cd "$download"
apt-get download -q $packages > /dev/null 2>&1 || { apt-get update -q && apt-get download -q $packages; } > /dev/null
for package in *.deb; do
    dpkg -x "$package" .
done
cp usr/bin/promtool usr/bin/amtool "$folder/bin/"
mkdir -p "$folder/lib"
cp usr/bin/redis-cli "$folder/lib/"
cp usr/lib/*/lib* "$folder/lib/"
printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s/redis-cli "$@"\n' "$folder/lib" "$folder/lib" > "$folder/bin/redis-cli"
chmod +x "$folder/bin/redis-cli"

#!/usr/bin/env bash
# Installs the programs that the client tests run, where that is allowed: as root, or by sudo without a password.
#
#   ci/install.sh [PACKAGE...]     other packages than those
set -uo pipefail
packages="${*:-gcc g++ libc6-dev pkg-config valgrind libgc1 libgc-dev guile-3.0 guile-3.0-dev chromium crystal libevent-dev libpcre3-dev ecl w3m}"
missing=""
for p in $packages; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
as=""
if [ "$(id -u)" != 0 ]; then
  sudo -n true 2>/dev/null || { echo "not root: would need$missing"; exit 1; }
  as="sudo -n"
fi
command -v apt-get >/dev/null || { echo "no apt-get: would need$missing"; exit 1; }
$as env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
  $as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null

#!/usr/bin/env bash
# Fetches a Debian source package, unmodified, as `apt-get source` does, from where this system gets its packages, and
# prints the directory that it was unpacked into. What is there already is not fetched again.
#
#   ci/source.sh PACKAGE DIRECTORY
set -euo pipefail
package=${1:?usage: ci/source.sh PACKAGE DIRECTORY}
into=${2:?usage: ci/source.sh PACKAGE DIRECTORY}
mkdir -p "$into"
cd "$into"
unpacked() { find . -mindepth 1 -maxdepth 1 -type d -name "$package-*" -o -mindepth 1 -maxdepth 1 -type d -name "${package#lib}-*" | head -n 1; }
if [ -z "$(unpacked)" ]; then
  # The same sources as for packages, with deb-src in the place of deb: the system's own lists stay as they are.
  lists=$PWD/.apt
  mkdir -p "$lists/parts" "$lists/state/partial" "$lists/cache/archives/partial"
  for f in /etc/apt/sources.list.d/*.sources; do
    [ -e "$f" ] && sed 's/^Types:.*/Types: deb-src/' "$f" >"$lists/parts/$(basename "$f")"
  done
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | sed -n 's/^deb /deb-src /p' >"$lists/parts/all.list" || true
  options=(-qq -o "Dir::Etc::sourceparts=$lists/parts" -o Dir::Etc::sourcelist=/dev/null -o "Dir::State::lists=$lists/state"
    -o "Dir::Cache=$lists/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update >&2
  # Unpacked by hand: dpkg-source is not on every machine, and patches are not wanted; a mirror that has only the original
  # source is enough.
  apt-get "${options[@]}" --download-only source "$package" >&2 || true
  for archive in "${package}"_*.orig*.tar.*; do
    case $archive in *.asc) ;; *) tar xf "$archive" ;; esac
  done
fi
found=$(unpacked)
[ -n "$found" ] || { echo "ci/source.sh: $package was not unpacked" >&2; exit 1; }
printf '%s\n' "$PWD/${found#./}"

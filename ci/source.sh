#!/usr/bin/env bash
# Fetches the original source of a Debian package, unmodified, as `apt-get source` does, from where this system gets its packages,
# and prints the directory that it was unpacked into. What is there already is not fetched again. The version is that of the
# installed package if the mirror still has it, else the newest that it has; it is an error if it has none.
#
#   ci/source.sh PACKAGE DIRECTORY
set -euo pipefail
package=${1:?usage: ci/source.sh PACKAGE DIRECTORY}
into=${2:?usage: ci/source.sh PACKAGE DIRECTORY}
mkdir -p "$into"
cd "$into"
# The directory in which everything was unpacked; one that an earlier run left half unpacked does not count.
unpacked=$PWD/.unpacked
if [ ! -e "$unpacked" ] || [ ! -d "$PWD/$(cat "$unpacked")" ]; then
  command -v apt-get >/dev/null || { echo "ci/source.sh: no apt-get, to fetch the source of $package with" >&2; exit 1; }
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
  known=$(apt-cache "${options[@]}" showsrc "$package" | sed -n 's/^Version: //p' | sort -ruV)
  [ -n "$known" ] || { echo "ci/source.sh: the mirror's lists know no source of $package" >&2; exit 1; }
  # Several binary packages may come from the source, and some may be of a rebuild: `source:Version` is the one that counts.
  installed=$(dpkg-query -W -f '${source:Package} ${source:Version}\n' 2>/dev/null | sed -n "s/^$package //p" | head -n 1)
  # Unpacked by hand: dpkg-source is not on every machine, and patches are not wanted; so only the original source is fetched.
  fetched=""
  for version in $(grep -Fx -- "${installed:-none}" <<<"$known") $(grep -Fxv -- "${installed:-none}" <<<"$known"); do
    rm -rf fetch
    mkdir fetch
    if (cd fetch && apt-get "${options[@]}" --download-only --tar-only source "$package=$version") 2>"$lists/said" >&2; then
      fetched=$version
      break
    fi
    echo "ci/source.sh: $package $version is not to be had: $(grep '^E:' "$lists/said" | head -n 1)" >&2
  done
  [ -n "$fetched" ] || { echo "ci/source.sh: the mirror has the source of no version of $package: $(echo $known)" >&2; exit 1; }
  [ "$fetched" = "${installed:-$fetched}" ] || echo "ci/source.sh: $package $fetched, not the installed $installed" >&2
  archives=0
  for archive in fetch/*.tar.*; do
    case $archive in
      *.asc) ;;
      *) tar xf "$archive" -C fetch && archives=$((archives + 1)) ;;
    esac
  done
  [ "$archives" -gt 0 ] || { echo "ci/source.sh: $package $fetched has no archive" >&2; exit 1; }
  found=$(find fetch -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | head -n 1)
  [ -n "$found" ] || { echo "ci/source.sh: the archive of $package $fetched holds no directory" >&2; exit 1; }
  rm -rf "./$found"
  mv "fetch/$found" "./$found"
  rm -rf fetch
  echo "$found" >"$unpacked"
fi
printf '%s\n' "$PWD/$(cat "$unpacked")"

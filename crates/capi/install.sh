#!/usr/bin/env bash
# Installs the C interface: header, static and shared library, file for pkg-config.
#
#   crates/capi/install.sh --prefix DIR [--archive FILE] [--destdir DIR]
#
# Builds the archive by cargo unless one is given. The shared library is linked from it by the C compiler (CC, else cc), as cargo's own
# linking has no versions of symbols.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
usage() { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
prefix="" archive="" destdir=""
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || usage
  case "$1" in
    --prefix) prefix=$2 ;;
    --archive) archive=$2 ;;
    --destdir) destdir=$2 ;;
    *) usage ;;
  esac
  shift 2
done
case "$prefix" in
  /*) ;;
  "") usage ;;
  *) echo "--prefix $prefix: an absolute path is wanted" >&2; exit 2 ;;
esac
case "$prefix" in
  *[[:space:]\$\#\"\'\\]*) echo "--prefix $prefix: pkg-config cannot give such a path" >&2; exit 2 ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../../Cargo.toml" | head -1)
if [ -z "$archive" ]; then
  (cd "$here/../.." && cargo build --release -p heapwright-capi)
  archive="${CARGO_TARGET_DIR:-$here/../../target}/release/libheapwright_capi.a"
fi
[ -f "$archive" ] || { echo "$archive: there is no such archive" >&2; exit 1; }
soname=libheapwright.so.0
libs="-lgcc_s -lpthread -ldl -lm"
lib="$destdir$prefix/lib" include="$destdir$prefix/include"
mkdir -p "$lib/pkgconfig" "$include"
# Under another name first: programs that run on an older library go on doing so.
"${CC:-cc}" -shared -o "$lib/$soname.new" -Wl,-soname,$soname -Wl,--version-script,"$here/heapwright.map" -Wl,-z,now -Wl,-z,defs \
  -Wl,--gc-sections $(sed -n 's/.*extern "C" fn \(hw_[a-z_]*\).*/-Wl,-u,\1/p' "$here"/src/*.rs) "$archive" $libs -lc
mv "$lib/$soname.new" "$lib/libheapwright.so.$version"
ln -sf "libheapwright.so.$version" "$lib/$soname"
ln -sf $soname "$lib/libheapwright.so"
install -m 644 "$archive" "$lib/libheapwright.a"
install -m 644 "$here/include/heapwright.h" "$include/heapwright.h"
cat > "$lib/pkgconfig/heapwright.pc" <<END
prefix=$prefix
libdir=\${prefix}/lib
includedir=\${prefix}/include

Name: Heapwright
Description: Memory managers for language runtimes
Version: $version
Libs: -L\${libdir} -lheapwright
Libs.private: $libs
Cflags: -I\${includedir}
END
for file in "$lib/libheapwright.so.$version" "$lib/libheapwright.a" "$include/heapwright.h" "$lib/pkgconfig/heapwright.pc"; do
  echo "installed $file"
done

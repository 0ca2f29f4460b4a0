#!/usr/bin/env bash
# The first run: an example project in a git repository of its own, one command to run it, one to ask where the
# result came from. Everything it makes lies in one folder under .demo, which can be deleted.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
export MLLAUNCH_HOME="$PWD/.demo/home"
project="$PWD/.demo/digits"

step() { printf '\n$ %s\n' "$*"; "$@"; }

[ -d "$project" ] || step mllaunch init --example digits "$project"
cd "$project"
step mllaunch run --runtime process train.py --epochs 5   # without it, in a container where Docker answers
step mllaunch provenance @last
printf '\nNext: cd %s; mllaunch ps; mllaunch show @last; mllaunch files @last\n' "$project"
printf '(with PATH=%s:$PATH and MLLAUNCH_HOME=%s)\n' "${PATH%%:*}" "$MLLAUNCH_HOME"

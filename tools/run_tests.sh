#!/usr/bin/env bash
# Lint, format and the whole test suite, in an environment that it makes itself.
# Usage: bash tools/run_tests.sh [--stack openmmlab|onedl] [--python PYTHON]
#                                [--torch VERSION] [pytest options]
set -o pipefail
# shellcheck source=tools/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
parse_env_args "$@"
setup_env </dev/null

SUMMARY=() STATUS=0

# check NAME COMMAND...: run it and remember how it ended.
check() {
    local name=$1 result=passed
    shift
    say "$name"
    "$@" </dev/null || result=FAILED STATUS=1
    SUMMARY+=("$(printf '%-14s%s' "$name" "$result")")
}

check 'ruff check' "$PY" -m ruff check .
check 'ruff format' "$PY" -m ruff format --check .
# One thread: small tensors gain nothing, and losses must repeat exactly. Two
# processes, a file of tests each: files share what they set up.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
check pytest "$PY" -m pytest --numprocesses=2 --dist=loadfile "${REST[@]}"

say 'Summary'
printf '%s\n' "${SUMMARY[@]}"
exit $STATUS

#!/usr/bin/env bash
# Lint and the whole test suite, in an environment that it makes itself.
# Usage: bash tools/run_tests.sh [--stack openmmlab|onedl] [--python PYTHON]
#                                [pytest options]
set -o pipefail
# shellcheck source=tools/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
parse_env_args "$@"
setup_env </dev/null

status=0
say 'ruff check'
"$PY" -m ruff check . || status=1
say 'pytest'
# One thread: small tensors gain nothing, and losses must repeat exactly. Two
# processes, a file of tests each: files share what they set up.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$PY" -m pytest --numprocesses=2 \
    --dist=loadfile "${REST[@]}" </dev/null || status=1
[ $status = 0 ] || echo 'run_tests: FAILED (lint or tests; see above)' >&2
exit $status

#!/usr/bin/env bash
# From a fresh clone to a comparison of PVD with DeepLabv3 on the built-in
# street sample. Safe to run again: it reuses the environment, goes on with an
# interrupted training and leaves a finished one alone.
# Usage: bash tools/quickstart.sh [--stack openmmlab|onedl] [--python PYTHON]
set -o pipefail
# shellcheck source=tools/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
parse_env_args "$@"
[ ${#REST[@]} = 0 ] || die "unknown argument: ${REST[0]}"
setup_env </dev/null

WORK=work_dirs/quickstart
[ "$STACK" = openmmlab ] || WORK=work_dirs/quickstart-$STACK

# The one shipped config of a method on the street sample.
street_config() {
    local found
    found=$(find "configs/$1" -name "$2*_street-*.py" | sort | head -n 1)
    [ -n "$found" ] || die "no street config of $2 in configs/$1"
    echo "$found"
}

# The run's last checkpoint, once the training has come to its end.
finished() {
    "$PY" - "$1" "$2" <<'END'
import sys
from pathlib import Path
from mmengine.config import Config
config, work_dir = sys.argv[1:]
last = Path(work_dir) / f'iter_{Config.fromfile(config).train_cfg.max_iters}.pth'
print(last if last.is_file() else '')
END
}

train_and_test() {
    local config=$1 work_dir=$2 checkpoint
    checkpoint=$(finished "$config" "$work_dir" 2>/dev/null | tail -n 1)
    if [ -n "$checkpoint" ]; then
        say "Trained already: $checkpoint"
    else
        local resume=()
        # Interrupted between two checkpoints, it names one that is gone.
        [ -f "$(cat "$work_dir/last_checkpoint" 2>/dev/null)" ] &&
            resume=(--resume)
        say "Training $(basename "$config" .py) ${resume[*]}"
        mim train pvd_mm "$config" --gpus 0 --work-dir "$work_dir" \
            "${resume[@]}" || die "training of $config failed"
        checkpoint=$(finished "$config" "$work_dir" | tail -n 1)
        [ -n "$checkpoint" ] || die "$work_dir has no final checkpoint"
    fi
    if [ -e "$work_dir/test/done" ] &&
        [ "$work_dir/test/done" -nt "$checkpoint" ]; then
        say "Tested already: $work_dir/test"
    else
        say "Testing $checkpoint"
        mim test pvd_mm "$config" --checkpoint "$checkpoint" --gpus 0 \
            --work-dir "$work_dir/test" || die "test of $checkpoint failed"
        touch "$work_dir/test/done"
    fi
    CHECKPOINT=$checkpoint
}

PVD=$(street_config pvd pvd_r18-stage) || exit 1
BASE=$(street_config deeplabv3 deeplabv3_r18-d8) || exit 1

say 'The street sample'
"$PY" tools/make_sample.py --out data/street || die 'no sample'

train_and_test "$PVD" "$WORK/pvd"
PVD_CHECKPOINT=$CHECKPOINT
train_and_test "$BASE" "$WORK/deeplabv3"
BASE_CHECKPOINT=$CHECKPOINT

say 'Comparing'
"$PY" tools/compare.py \
    --run DeepLabv3 "$BASE" "$BASE_CHECKPOINT" "$WORK/deeplabv3/test" \
    --run PVD "$PVD" "$PVD_CHECKPOINT" "$WORK/pvd/test" \
    --out "$WORK/compare"

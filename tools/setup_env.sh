#!/usr/bin/env bash
# The environment of quickstart.sh and run_tests.sh; sourced, not run.
#
# parse_env_args "$@"   reads --stack, --python and --torch, leaves the rest in REST
# setup_env             makes or reuses the environment; sets VENV and PY
#
# pip's own settings (PIP_FIND_LINKS, PIP_INDEX_URL, pip.conf) are respected.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
STACK=openmmlab
BASE_PYTHON=
TORCH=
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
            --torch) TORCH=${2:-}; shift 2 || die '--torch needs a value' ;;
            --torch=*) TORCH=${1#*=}; shift ;;
            *) REST+=("$1"); shift ;;
        esac
    done
    case $STACK in
        openmmlab | onedl) ;;
        *) die "--stack is openmmlab or onedl, got '$STACK'" ;;
    esac
    [[ -z $TORCH || $TORCH =~ ^2\.[0-9]+\.[0-9]+$ ]] && [[ $TORCH != 2.0.* ]] ||
        die "--torch is a version from 2.1.0 on, as 2.1.2, got '$TORCH'"
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

# The tested set; with --torch, without the pins of what depends on torch, which pip
# then chooses. torch before 2.3 was built for NumPy 1, and needs a setuptools that
# still has pkg_resources.packaging. Of torch 2.4's Triton 3.0 the interpreter, in which
# the kernels are tested, leaves zeros in place of results with NumPy 2.
constraints() {
    local pins="$ROOT/requirements/constraints-$STACK.txt"
    if [ -z "$TORCH" ]; then
        cat "$pins"
        return
    fi
    local dropped='torch|triton|sympy'
    echo "torch==$TORCH"
    if [[ $TORCH =~ ^2\.[124]\. ]]; then
        dropped+='|numpy|scipy|pandas|matplotlib|contourpy|ml_dtypes|onnx[a-z-]*'
        dropped+='|opencv-[a-z-]*|scikit-image|numba|llvmlite|setuptools'
        printf '%s\n' 'numpy<2' 'opencv-python<4.12' 'opencv-python-headless<4.12' \
            'setuptools<70'
    fi
    grep -vE "^($dropped)==" "$pins"
}

# What the environment is made from; another sum means: install again.
fingerprint() {
    {
        echo "$STACK $("$PY" -V 2>&1)"
        constraints
        cat "$ROOT"/requirements/{build,docs,mim,runtime,tests}.txt \
            "$ROOT/requirements/$STACK.txt" \
            "$ROOT"/{build_backend.py,setup.py,setup.cfg,pyproject.toml} \
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
        -c "$VENV/constraints.txt" "$@"
}

mmcv_works() { (cd / && "$PY" -c 'import mmcv.ops') >/dev/null 2>&1; }

# Make the compiler take the C++ standard that torch's headers ask for, as far as it is
# above the 17 that mmcv's setup.py asks for after all that the environment can add.
raise_cxx_standard() {
    local include standard
    include=$("$PY" -c 'import torch; print(*torch.__path__)')/include
    standard=$(sed -nE 's/^#error C\+\+([0-9]+) or later.*/\1/p' \
        "$include/torch/csrc/api/include/torch/all.h" 2>/dev/null)
    [ "${standard:-0}" -gt 17 ] || return 0
    printf '#!/bin/sh\nexec %s "$@" -std=c++%s\n' "${CXX:-c++}" "$standard" \
        >"$VENV/bin/mmcv-c++" && chmod +x "$VENV/bin/mmcv-c++"
    export CXX="$VENV/bin/mmcv-c++" NVCC_APPEND_FLAGS="-std=c++$standard"
}

# mmcv has C++ sources and is built against the installed torch, which the names of its
# wheels do not tell: neither of those that pip finds nor of those that it has compiled
# before and keeps in its cache.
install_mmcv() {
    local package=mmcv log="$VENV/mmcv-build.log" lack='No wheel of it for this Python'
    [ "$STACK" = openmmlab ] || package=onedl-mmcv
    say "$package (a wheel, if pip finds one)"
    if pip_install --only-binary "$package" "$package"; then
        mmcv_works && return
        lack='The wheel is for another torch'
        "$PY" -m pip uninstall -q -y "$package"
    fi
    say "$lack: compiling $package." \
        "This takes about 16 minutes on 2 cores (log: $log)"
    pip_install -r "$ROOT/requirements/build.txt" || return
    (
        raise_cxx_standard
        pip_install -v --no-cache-dir --no-build-isolation \
            --no-binary "$package" "$package"
    ) >"$log" 2>&1 &
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
    mmcv_works || {
        (cd / && "$PY" -c 'import mmcv.ops')
        die "$package was compiled but cannot be imported; see above"
    }
}

setup_env() {
    cd "$ROOT" || exit 1
    VENV=$ROOT/.venv
    [ "$STACK" = openmmlab ] || VENV+=-onedl
    [ -z "$TORCH" ] || VENV+=-torch$TORCH
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
    constraints >"$VENV/constraints.txt"
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

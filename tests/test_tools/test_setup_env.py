# Copyright (c) PVD-MM contributors. Apache-2.0.
"""tools/setup_env.sh, with an interpreter in Python's place that notes what it is
asked for: which mmcv is taken, and what the environments are made of."""

import shutil

import pytest

from helpers.commands import ROOT, run

pytestmark = pytest.mark.skipif(not shutil.which('bash'), reason='there is no bash')

PYTHON = """#!/bin/bash
# state: "absent", "broken" or "works" is what `import mmcv.ops` finds
echo "$*" >>"$VENV/calls"
case "$*" in
    *'print(*torch.__path__)'*) echo "$VENV/torch" ;;
    *'import mmcv.ops'*) [ "$(cat "$VENV/state")" = works ] ;;
    *--only-binary*) [ "$(cat "$VENV/state")" != absent ] ;;
    *--no-binary*)
        [ -z "$CXX" ] || "$CXX" file.cpp >>"$VENV/calls"
        echo "$AFTER_COMPILING" >"$VENV/state" ;;
esac
"""


@pytest.fixture
def setup_env(tmp_path):
    """Runs functions of the script; gives what they print and pip was asked for."""
    (tmp_path / 'bin').mkdir()
    headers = tmp_path / 'torch/include/torch/csrc/api/include/torch'
    headers.mkdir(parents=True)
    for name, text in {
        'bin/python': PYTHON,
        'bin/sleep': '#!/bin/sh\nexec /bin/sleep 0.1\n',
        'bin/c++': '#!/bin/sh\necho c++ "$@"\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def call(commands, *arguments, state='absent', standard=17, compiled='works', **kw):
        (tmp_path / 'calls').unlink(missing_ok=True)
        (tmp_path / 'state').write_text(state)
        (headers / 'all.h').write_text(
            f'#error C++{standard} or later compatible compiler is required.\n'
        )
        script = f'source "{ROOT}/tools/setup_env.sh"; parse_env_args "$@"\n'
        script += f'export VENV="{tmp_path}" PATH="{tmp_path}/bin:$PATH"; PY=python\n'
        words = ['-c', script + commands, 'test', *arguments]
        out = run('bash', *words, CXX='', AFTER_COMPILING=compiled, **kw)
        calls = tmp_path / 'calls'
        return out, calls.read_text() if calls.exists() else ''

    return call


def test_a_wheel_of_mmcv_that_works_is_taken(setup_env):
    _, calls = setup_env('install_mmcv', state='works')
    assert '--only-binary mmcv mmcv' in calls
    assert '--no-binary' not in calls


@pytest.mark.parametrize(
    'stack, package', [('openmmlab', 'mmcv'), ('onedl', 'onedl-mmcv')]
)
@pytest.mark.parametrize('state', ['absent', 'broken'])
def test_mmcv_for_another_torch_is_compiled(state, stack, package, setup_env):
    """Whether pip finds none, or one that was compiled for another torch; and never
    taken from pip's cache, which has one name for all."""
    out, calls = setup_env('install_mmcv', '--stack', stack, state=state)
    (line,) = [line for line in calls.splitlines() if '--no-binary' in line]
    assert '--no-cache-dir' in line and '--no-build-isolation' in line
    assert line.endswith(f'--no-binary {package} {package}')
    assert (f'uninstall -q -y {package}' in calls) is (state == 'broken')
    assert ('The wheel is for another torch' in out) is (state == 'broken')


def test_a_compiled_mmcv_that_does_not_work_is_an_error(setup_env):
    out, _ = setup_env('install_mmcv', compiled='broken', ok=False)
    assert 'error: mmcv was compiled but cannot be imported' in out


@pytest.mark.parametrize('standard', [17, 20])
def test_the_standard_that_torch_asks_for(standard, setup_env):
    """mmcv's setup.py asks for C++17, in the last place of the command."""
    _, calls = setup_env('install_mmcv', standard=standard)
    assert ('c++ file.cpp -std=c++20\n' in calls) is (standard == 20)


@pytest.mark.parametrize('stack', ['openmmlab', 'onedl'])
def test_constraints(stack, setup_env):
    def constraints(*arguments):
        out, _ = setup_env('constraints', '--stack', stack, *arguments)
        return {line for line in out.splitlines() if not line.startswith('#')}

    tested = constraints()
    path = ROOT / f'requirements/constraints-{stack}.txt'
    assert tested == {
        line for line in path.read_text().splitlines() if not line.startswith('#')
    }

    newer = constraints('--torch', '2.8.0')
    assert newer - tested == {'torch==2.8.0'}
    dropped = {line.split('==')[0] for line in tested - newer}
    assert dropped == {'torch', 'triton', 'sympy'}

    older = constraints('--torch=2.1.2')
    assert {'torch==2.1.2', 'numpy<2', 'setuptools<70'} < older
    assert 'numpy<2' in constraints('--torch=2.4.1')  # for Triton 3.0's interpreter
    pinned = {line.split('==')[0] for line in older}
    assert not pinned & {'numpy', 'scipy', 'opencv-python', 'onnx', 'onnx-ir', 'numba'}
    mmcv = 'mmcv==2.1.0' if stack == 'openmmlab' else 'onedl-mmcv==2.3.6'
    assert {mmcv, 'pytest==9.2.0'} < older


@pytest.mark.parametrize('version', ['2.0.1', '2.1', '1.13.1', 'latest'])
def test_a_torch_that_is_no_version_or_too_old(version, setup_env):
    out, _ = setup_env('constraints', '--torch', version, ok=False)
    assert (
        f"error: --torch is a version from 2.1.0 on, as 2.1.2, got '{version}'" in out
    )

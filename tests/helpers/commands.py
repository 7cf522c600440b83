# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Running the tools as users do; on pytest's path by pyproject.toml."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command, cwd=None, ok=True, timeout=300, **env):
    """Run a command; return its stdout and stderr together."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            'OMP_NUM_THREADS': '1',
            'PYTHONPATH': f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}',
            **env,
        },
    )
    assert (done.returncode == 0) is ok, done.stdout[-3000:]
    return done.stdout


def python(*arguments, **kwargs):
    """Run this Python with arguments."""
    return run(sys.executable, *arguments, **kwargs)


_NOTHING_ELSE = """
import runpy, sys
packages = 'torch torchvision mmengine mmcv mmseg mmdet pvd_mm onnx'
for name in packages.split():
    sys.modules[name] = None  # cannot be imported
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""


def run_exported(*arguments):
    """Run ``tools/run_exported.py`` where nothing of ours and OpenMMLab's is."""
    script = ROOT / 'tools/run_exported.py'
    return python('-c', _NOTHING_ELSE, script, *arguments, PYTHONPATH='')


def tool(name, *arguments, **kwargs):
    """Run a script of ``tools/``."""
    return python(ROOT / 'tools' / f'{name}.py', *arguments, **kwargs)


def losses(work_dir):
    """Loss by iteration, over all runs of a work dir."""
    found = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if 'loss' in entry:
                found[entry['step']] = entry['loss']
    return found

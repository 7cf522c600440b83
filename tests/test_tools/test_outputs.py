# Copyright (c) PVD-MM contributors. Apache-2.0.
"""No tool replaces results without being told to, or works for nothing."""

import pytest

SEGMENTOR = 'pvd_r18-stage-c32_1xb2-600_street-192x256'


@pytest.mark.parametrize(
    'name,words',
    [
        ('compare', ['--run', 'A', 'none.py', 'none.pth']),
        ('overfit', ['mask-rcnn_r18-c4_1x_coco', '--data-root', 'none']),
        ('level_norms', [SEGMENTOR, '--cfg-options', 'data_root=none']),
        ('benchmark_model', [SEGMENTOR]),
    ],
)
def test_results_are_replaced_with_force_only(name, words, run_tool, tmp_path):
    """Refused before there is a look at the other arguments."""
    mine = tmp_path / f'{name}.json'
    mine.write_text('mine')
    out = tmp_path / name if name == 'benchmark_model' else tmp_path
    said = run_tool(name, *words, '--out', out, ok=False)
    assert str(mine) in said and '--force' in said
    assert mine.read_text() == 'mine'
    assert sorted(tmp_path.iterdir()) == [mine]


def test_force(run_tool, tmp_path):
    """What is wrong then is something else."""
    (tmp_path / 'compare.json').touch()
    said = run_tool(
        'compare',
        '--run',
        'A',
        'none.py',
        'none.pth',
        '--out',
        tmp_path,
        '--force',
        ok=False,
    )
    assert "'none.py' does not exist" in said

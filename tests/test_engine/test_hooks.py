# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A resumed training is the uninterrupted one to the last bit, whatever the runner,
the seed and the accumulation of gradients."""

import shutil

import pytest
import torch

from pvd_mm.engine.train import train

pytest.importorskip('mmseg')

OPTIONS = {
    'accumulation': {'optim_wrapper.accumulative_counts': 2},
    'FlexibleRunner': {
        'runner_type': 'FlexibleRunner',
        'randomness': dict(seed=None),
        'env_cfg': {},
    },
    'diff_rank_seed': {'randomness': dict(seed=None, diff_rank_seed=True)},
}


@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_resuming_changes_nothing(tiny_config, tmp_path, options):
    from mmengine.runner.loops import _InfiniteDataloaderIterator
    from mmengine.utils import ManagerMixin

    options = {'train_cfg.max_iters': 4, **options}
    full, resumed = tmp_path / 'full', tmp_path / 'resumed'
    runner = train(str(tiny_config), str(full), cfg_options=options)
    iterator = runner.train_loop.dataloader_iterator
    assert type(iterator) is _InfiniteDataloaderIterator  # as upstream's
    kept = torch.load(full / 'iter_3.pth')
    assert ('gradients' in kept) is ('optim_wrapper.accumulative_counts' in options)
    assert kept['meta']['sampler_seed'] == runner.train_loop.dataloader.sampler.seed
    assert 'gradients' not in torch.load(full / 'iter_4.pth')  # after a step

    resumed.mkdir()
    shutil.copy(full / 'iter_3.pth', resumed)
    for kind in [ManagerMixin, *ManagerMixin.__subclasses__()]:
        kind._instance_dict.clear()
    train(str(tiny_config), str(resumed), resume='auto', cfg_options=options)
    found, expected = (
        torch.load(folder / 'iter_4.pth')['state_dict'] for folder in (full, resumed)
    )
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name
    before = kept['state_dict']  # and the fourth iteration has changed them
    assert not all(torch.equal(before[name], expected[name]) for name in expected)

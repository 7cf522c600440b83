# Copyright (c) PVD-MM contributors. Apache-2.0.
import pickle
import warnings

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

import pvd_mm
from helpers.commands import python
from helpers.fresh import fresh_pythons
from pvd_mm.engine import compatibility

pvd_mm.register_all_modules()


class Intruder:
    """Writes a file when it is unpickled carelessly."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


#: torch<2.4 has no list of allowed classes, and before 2.6 it loads by default
#: whatever a file holds.
safe_globals = getattr(torch.serialization, 'get_safe_globals', list)
find_unsafe = getattr(torch.serialization, 'get_unsafe_globals_in_checkpoint', None)


def test_patches_are_idempotent():
    def state():
        return (
            set(map(str, safe_globals())),
            Config._get_cfg_path,
        )

    before = state()
    for name in compatibility.__all__ * 2:
        if name != 'hide_known_warnings':
            getattr(compatibility, name)()
    assert state() == before


@pytest.mark.skipif(not find_unsafe, reason='torch before 2.6')
def test_checkpoint_loads_under_weights_only(trained):
    path = trained / 'iter_6.pth'
    assert find_unsafe(str(path)) == []
    loaded = torch.load(path, weights_only=True)
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.current() == history.min(1)


def test_checkpoint_does_not_load_without_the_patch(trained):
    out = python(
        '-W',
        'ignore',
        '-c',
        'import sys, torch\n'
        'try:\n    torch.load(sys.argv[1], weights_only=True)\n'
        'except Exception as error:\n    print(type(error).__name__)',
        trained / 'iter_6.pth',
    )
    assert 'UnpicklingError' in out


def test_hostile_checkpoint_stays_refused(tmp_path):
    """By torch and by mmengine, whose fork would fall back to unsafe."""
    from mmengine.runner import CheckpointLoader

    path, victim = tmp_path / 'bad.pth', tmp_path / 'written'
    torch.save(dict(state_dict={}, extra=Intruder(victim)), path)
    loaders = [lambda: torch.load(path, weights_only=True)]
    if find_unsafe:
        loaders.append(lambda: CheckpointLoader.load_checkpoint(str(path)))
    for load in loaders:
        with pytest.raises(pickle.UnpicklingError):
            load()
    assert not victim.exists()


def test_getattr_is_not_let_in():
    for owner, name in (
        (HistoryBuffer, '__init__'),
        (torch, 'load'),
        (HistoryBuffer(), 'mean'),
    ):
        with pytest.raises(AttributeError, match='may not look up'):
            compatibility._statistic_of_history(owner, name)


def write(folder, text):
    path = folder / 'mine.py'
    path.write_text(text)
    return path


def test_inherit_experiment_from_another_folder(tmp_path):
    name = 'pvd/pvd_r18-stage_1xb4-90k_cityscapes-512x1024'
    path = write(
        tmp_path,
        f"_base_ = 'pvd_mm::{name}.py'\n"
        'model = dict(decode_head=dict(num_classes=7))\n'
        'copied = {{_base_.model}}\n',
    )
    cfg = Config.fromfile(path)
    assert cfg.model.decode_head.num_classes == 7
    assert '_scope_' not in str(cfg._cfg_dict)
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    init_default_scope('mmseg')
    head = MODELS.build(cfg.model).decode_head
    assert type(head).__name__ == 'PVDHead' and head.num_classes == 7
    bare = write(tmp_path, f"_base_ = 'pvd_mm::{name}'\n")
    assert Config.fromfile(bare).model.type == 'EncoderDecoder'


def test_inherit_primitives_beside_mmseg_s(tmp_path):
    cfg = Config.fromfile(
        write(
            tmp_path,
            (
                "_base_ = ['pvd_mm::_base_/models/pvd_r18-stage.py',\n"
                "          'pvd_mm::_base_/default_runtime.py',\n"
                "          'mmseg::_base_/schedules/schedule_20k.py']\n"
            ),
        )
    )
    assert cfg.train_cfg.max_iters == 20000
    assert cfg.model.decode_head.type == 'PVDHead'


def test_inherit_from_mmdet(tmp_path):
    pytest.importorskip('mmdet')
    cfg = Config.fromfile(
        write(tmp_path, "_base_ = 'mmdet::_base_/schedules/schedule_1x.py'\n")
    )
    assert cfg.train_cfg.max_epochs == 12


@pytest.mark.parametrize(
    'name', ['pvd/pvd_r18-stage_1xb4-90k_cityscape-512x1024.py', 'pvd/no_such.py']
)
def test_missing_base_lists_near_matches(tmp_path, name):
    with pytest.raises(FileNotFoundError, match='Config not found') as error:
        Config.fromfile(write(tmp_path, f"_base_ = 'pvd_mm::{name}'\n"))
    assert 'pvd/pvd_r18-stage_1xb4-90k_cityscapes-512x1024.py' in str(error.value)


def test_mmengine_hub_knows_our_configs():
    from mmengine.hub import get_config

    cfg = get_config('pvd_mm::pvd/pvd_r18-stage_1xb4-90k_cityscapes-512x1024')
    assert cfg.model.decode_head.type == 'PVDHead'


def test_only_known_warnings_are_hidden(monkeypatch, capsys):
    from mmengine import logging
    from mmengine.logging import MMLogger

    monkeypatch.setattr(MMLogger, 'filter', MMLogger.filter)
    monkeypatch.setattr(logging, 'print_log', logging.print_log)
    logger = MMLogger.get_instance('warnings')
    known = '"FileClient" will be deprecated in future. Please use io functions'
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        compatibility.hide_known_warnings()
        for module in ('mmseg.models.builder', 'mine'):
            for text in ('``build_loss`` would be deprecated soon', 'another'):
                warnings.warn_explicit(text, UserWarning, 'file', 1, module)
        logger.warning(known)
        logger.warning('another')
    assert [str(warning.message) for warning in caught] == [
        'another',
        '``build_loss`` would be deprecated soon',
        'another',
    ]
    out = ''.join(capsys.readouterr())
    assert known not in out and 'another' in out


def test_what_is_printed_when_frameworks_are_imported():
    """onedl-* prints lines of its own, unless known ones are hidden first."""
    (out,) = fresh_pythons(
        'import pvd_mm\n'
        'from pvd_mm.engine.compatibility import hide_known_warnings\n'
        'hide_known_warnings()\n'
        'pvd_mm.register_all_modules()\n'
        'from mmengine.logging import print_log\n'
        'print_log("Could not import OneDL. Skipping", level=10)\n'
        'print_log("another")'
    )
    assert 'OneDL' not in out
    assert out.endswith('another\n')


def test_class_weights_with_pixels_to_ignore():
    """mmseg's loss as torch's own, averaged over what is labelled."""
    pytest.importorskip('mmseg')
    from mmseg.models.losses import CrossEntropyLoss

    torch.manual_seed(0)
    weight = [0.5, 1.0, 2.0]
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    for ignored in (0, 7, 40):
        labels.view(-1)[:ignored] = 255
        loss = CrossEntropyLoss(class_weight=weight)(logits, labels, ignore_index=255)
        if ignored == 40:  # nothing is labelled: nothing is learnt
            assert loss == 0
            continue
        torch.testing.assert_close(
            loss,
            torch.nn.functional.cross_entropy(
                logits, labels, torch.tensor(weight), ignore_index=255
            ),
        )

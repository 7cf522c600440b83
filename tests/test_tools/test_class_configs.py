# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Every tool treats a config of classes, mmengine's pure Python style, as its twin of
names: what it writes for one is what it writes for the other."""

import json
import re

import pytest
from mmengine import load
from mmengine.config import Config

from helpers.class_configs import write_twin
from helpers.commands import losses

pytest.importorskip('mmseg')
pytest.importorskip('mmdet')

from pvd_mm.apis.inferencers import load_inferencer  # noqa: E402


@pytest.fixture(params=['segmentor', 'detector'])
def twins(request, tmp_path):
    """Name of the fixture; configs of names and of classes; their checkpoint."""
    names = request.getfixturevalue(request.param)
    twin = write_twin(names.config, tmp_path)
    assert Config.fromfile(twin).default_scope is None
    assert isinstance(Config.fromfile(twin).model.type, type)
    return request.param, (names.config, str(twin)), names.checkpoint


def contents(folder):
    """Relative path to content, of the files that are the same for every run."""
    return {
        str(path.relative_to(folder)): repr(load(path))
        if path.suffix == '.pkl'
        else path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file() and path.suffix in ('.png', '.jpg', '.pkl', '.json')
    }


def run_both(run_tool, tmp_path, name, configs, *words):
    """Run a tool with each config, ``OUT`` in the words being a folder of its own;
    what it has written there, and said."""
    results = []
    for kind, config in zip(('names', 'classes'), configs):
        out = tmp_path / name / kind
        said = run_tool(
            name,
            config,
            *(word.replace('OUT', str(out)) for word in map(str, words)),
        )
        results.append((out, said))
    return results


def test_test(run_tool, twins, street, shapes, tmp_path):
    kind, configs, checkpoint = twins
    words = [checkpoint, '--work-dir', 'OUT/work', '--show-dir', 'OUT/show', '--out']
    words.append('OUT/out' if kind == 'segmentor' else 'OUT/out/all.pkl')
    words.append('--cfg-options')
    if kind == 'detector':
        ann_file = shapes / 'annotations/instances_val2017.json'
        words += [f'test_evaluator.{i}.ann_file={ann_file}' for i in range(2)]
    else:  # mmseg asks for the number of the training's iteration
        words.append(f'train_dataloader.dataset.data_root={street}')
    both = run_both(run_tool, tmp_path, 'test', configs, *words)
    for part in ('out', 'show'):
        first, second = (contents(folder / part) for folder, _ in both)
        assert first and first == second
    first, second = (
        json.loads(next(folder.glob('work/records/*.json')).read_text())
        for folder, _ in both
    )
    assert first['result'] == second['result']
    assert first['data'] == second['data']


def test_test_time_augmentation(run_tool, segmentor, tmp_path):
    configs = segmentor.config, write_twin(segmentor.config, tmp_path)
    words = segmentor.checkpoint, '--tta', '--work-dir', 'OUT'
    both = run_both(run_tool, tmp_path, 'test', configs, *words)
    first, second = (
        json.loads(next(folder.glob('records/*.json')).read_text())['result']
        for folder, _ in both
    )
    assert first == second and 'mIoU' in first


def test_predict(run_tool, twins, street, tmp_path):
    _, configs, checkpoint = twins
    image = next(street.glob('leftImg8bit/val/*/*.png'))
    words = checkpoint, image, '--out', 'OUT', '--scale', 0.5, '--device', 'cpu'
    both = run_both(run_tool, tmp_path, 'predict', configs, *words)
    first, second = (contents(folder) for folder, _ in both)
    assert len(first) >= 2 and first == second
    inferencer = load_inferencer(configs[1], checkpoint, 'cpu', scale=0.5)
    assert inferencer.prepare(str(image))['inputs'][0].shape == (3, 32, 64)


def test_train(run_tool, twins, street, shapes, tmp_path):
    kind, configs, _ = twins
    root = street if kind == 'segmentor' else shapes
    options = [
        f'train_dataloader.dataset.data_root={root}',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'train_cfg.max_iters=1',
        'default_hooks.logger.interval=1',
        'val_dataloader=None',
        'val_cfg=None',
        'val_evaluator=None',
    ]
    if kind == 'segmentor':
        options.append('model.data_preprocessor.size=(192,256)')
    words = ['--work-dir', 'OUT', '--cfg-options', *options]
    words = ['--amp', *words] if kind == 'segmentor' else words
    both = run_both(run_tool, tmp_path, 'train', configs, *words)
    (first, _), (second, _) = both
    assert losses(first) == losses(second) != {}
    assert (first / 'iter_1.pth').is_file() and (second / 'iter_1.pth').is_file()
    if kind == 'segmentor':
        assert 'CPUAmpOptimWrapper' in next(second.glob('*.py')).read_text()


def test_check_dataset(run_tool, twins, tmp_path):
    _, configs, _ = twins
    (_, first), (_, second) = run_both(
        run_tool, tmp_path, 'check_dataset', configs, '--splits', 'val', 'test'
    )
    first, second = (
        re.findall(r'^(?:val: |test: |  note: ).*', said, re.M)
        for said in (first, second)
    )
    assert first[0] == 'val: 3 samples, 0 problems'
    assert first == second


def test_tools_that_compare(run_tool, twins, tmp_path):
    """Of a config and its twin no pixel differs, and no cost."""
    _, configs, checkpoint = twins
    runs = [
        word
        for name, config in zip(('names', 'classes'), configs)
        for word in ('--run', name, config, checkpoint)
    ]
    run_tool('draw_figures', *runs, '--out', tmp_path / 'f.png', '--device', 'cpu')
    drawn = json.loads((tmp_path / 'f.json').read_text())
    assert [image['differing'] for image in drawn['images']] == [0, 0, 0]
    run_tool('compare', *runs, '--out', tmp_path / 'compare')
    first, second = json.loads((tmp_path / 'compare/compare.json').read_text())['rows']
    for key in set(first) - {'method', 'seconds'}:
        assert first[key] == second[key], key


def test_benchmark_model(run_tool, twins, tmp_path):
    kind, configs, _ = twins
    out = tmp_path / 'table'
    words = ['--size', 32, 64, '--rounds', 1, '--only', 'forward', '--out', out]
    run_tool('benchmark_model', *configs, *words)
    first, second = json.loads(out.with_suffix('.json').read_text())['results']
    for key in ('params', 'forward_macs'):
        assert first[key] == second[key] > 0


def test_tools_for_segmentors(run_tool, segmentor, street, tmp_path):
    configs = segmentor.config, write_twin(segmentor.config, tmp_path)
    image = next(street.glob('leftImg8bit/val/*/*.png'))
    words = ['--pixel', 60, 30, '--out', 'OUT.png', '--scale', 0.5, '--verbose']
    words = [segmentor.checkpoint, image, *words, '--device', 'cpu']
    (_, first), (_, second) = run_both(
        run_tool, tmp_path, 'draw_votes', configs, *words
    )
    assert 'M_1' in first
    lines = [line for line in first.splitlines() if line.startswith('|')]
    assert lines == [line for line in second.splitlines() if line.startswith('|')]
    runs = [
        word
        for name, config in zip(('names', 'classes'), configs)
        for word in ('--run', name, config, segmentor.checkpoint)
    ]
    said = run_tool('boundary_limits', *runs, '--strides', 2)
    first, second = re.findall(r'^\| (?:names|classes) (\|.*)$', said, re.M)
    assert first == second

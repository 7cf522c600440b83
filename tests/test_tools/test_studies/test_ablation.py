# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A grid of trainings: what it says, what is trained, resumed and drawn."""

import dataclasses
import inspect
import json
import subprocess
import sys

import pytest
import torch
import yaml
from mmengine.config import Config, DictAction

from helpers.commands import ROOT
from pvd_mm.data.samples import make_street_sample
from pvd_mm.engine.config import load_config
from pvd_mm.engine.records import read_records
from pvd_mm.utils.errors import MissingDataError, UserError
from pvd_mm.utils.shipped_configs import mim_root
from studies.ablation import (
    RESULTS,
    GridError,
    Trial,
    command,
    load_grid,
    markdown,
    plot,
    read_results,
    results_of,
    run,
    summarize,
    table,
    update_blocks,
)
from studies.ablation.run import _lock

PVD = 'pvd_r18-stage-c32_1xb2-600_street-192x256'
DEEPLABV3 = 'deeplabv3_r18-d8-c32_1xb2-600_street-192x256'
SHIPPED = sorted((mim_root() / 'configs/ablations').glob('*.yml'))


def write(path, **changes):
    content = dict(
        metrics={'mIoU': 'mIoU', 'boundary': 'mBoundaryIoU'},
        baseline='DeepLabv3',
        tables={
            'both': {
                'DeepLabv3': dict(config=DEEPLABV3),
                'PVD, 3×3': dict(
                    config=PVD,
                    seeds=[0, 1],
                    options={'model.decode_head.decoder.fuse_conv_size': 3},
                ),
            },
            'one': {'PVD, 3×3': None},
        },
    )
    content.update(changes)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def result(name, seed=0, **changes):
    curve = {
        str(step): dict(mIoU=step + 10.0 * seed, mBoundaryIoU=1.0) for step in (1, 2)
    }
    return {
        **dict(
            name=name,
            seed=seed,
            options={},
            steps=2,
            curve=curve,
            metrics=curve['2'],
            seconds=8.0,
            step_seconds=4.0,
            jobs=1,
            config=DEEPLABV3 if name == 'DeepLabv3' else PVD,
        ),
        **changes,
    }


@pytest.mark.parametrize('path', SHIPPED, ids=lambda path: path.stem)
def test_shipped_grids(path):
    """Every trial's config takes its overrides, as the command line reads
    them, and its model can be built."""
    from mmengine.registry import init_default_scope
    from mmseg.registry import MODELS

    for trial in load_grid(str(path)).trials:
        words = command('train', trial, trial.seeds[-1], 'work', 'data/')
        given = words[words.index('--cfg-options') + 1 :]
        options = dict(
            (key, DictAction._parse_iterable(value))
            for key, value in (word.split('=', 1) for word in given)
        )
        cfg = load_config(trial.config, 'work', options)
        assert cfg.randomness.seed == trial.seeds[-1]
        assert cfg.train_dataloader.dataset.data_root == 'data/'
        init_default_scope(cfg.default_scope)
        model = MODELS.build(cfg.model)
        plain = Config.fromfile(words[2])
        for key, value in trial.options.items():
            node = cfg
            for part in key.split('.'):
                node = node[int(part) if part.isdigit() else part]
            # YAML has no tuples: '(360,480)' is one on the command line
            assert node == (options[key] if isinstance(value, str) else value), key
            if '.custom_keys.' in key:  # of parameters that there are
                part = key.split('.custom_keys.')[1].split('.')[0]
                assert any(part in name for name, _ in model.named_parameters())
            elif key.startswith('optim_wrapper.optimizer.'):  # torch's own
                optimizer = getattr(torch.optim, cfg.optim_wrapper.optimizer.type)
                assert key.split('.')[-1] in inspect.signature(optimizer).parameters
            else:
                assert key.split('.')[-1] in str(plain) or 'model' in key


def test_a_grid(tmp_path):
    grid = load_grid(write(tmp_path / 'grid.yml'))
    assert [one.name for one in grid.trials] == ['DeepLabv3', 'PVD, 3×3']
    assert grid.tables['one'][0] is grid.tables['both'][1]
    assert grid.trials[1].folder(1) == 'pvd-3-3_seed1'


@pytest.mark.parametrize(
    'changes,message',
    [
        (dict(baseline='Nothing'), "baseline must be .* 'Nothing'"),
        (dict(tables={}), 'tables must be'),
        (dict(seed=3), 'unknown seed; allowed are'),
        (dict(tables=dict(t={'A': dict(seeds=[0])})), 't: A must give a config'),
        (dict(tables=dict(t={'A': dict(config=PVD, seeds=['x'])})), 'integers'),
        (dict(tables=dict(t={'A': dict(config=PVD, option={})})), 'unknown opt'),
        (dict(tables=dict(t={'A': dict(config='pvd_r19')})), 'pvd_r19'),
        (
            dict(tables=dict(t={'A': dict(config=PVD), 'a': dict(config=PVD)})),
            'same folder',
        ),
        (
            dict(tables=dict(t={'A': dict(config=PVD)}, u={'A': dict(config=PVD)})),
            'there twice',
        ),
    ],
)
def test_mistakes_in_a_grid(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        load_grid(write(tmp_path / 'grid.yml', **changes))


def test_no_grid_no_data_no_trial(tmp_path):
    with pytest.raises(MissingDataError, match='nothing.yml'):
        load_grid(str(tmp_path / 'nothing.yml'))
    (tmp_path / 'bad.yml').write_text('a: [')
    with pytest.raises(GridError, match='not YAML'):
        load_grid(str(tmp_path / 'bad.yml'))
    grid = load_grid(write(tmp_path / 'grid.yml'))
    with pytest.raises(MissingDataError, match='no_data'):
        run(grid, str(tmp_path / 'out'), str(tmp_path / 'no_data'))
    with pytest.raises(GridError, match='no trial is called Mask'):
        run(grid, str(tmp_path / 'out'), only=['Mask'])
    assert not (tmp_path / 'out').exists()


def test_results(tmp_path, capsys):
    """A broken line is named and left out; one of a changed trial refused."""
    lines = [json.dumps(result('DeepLabv3')), '{"name": ', '{"name": "x"}']
    (tmp_path / RESULTS).write_text('\n'.join(lines) + '\n')
    found = read_results(str(tmp_path))
    assert [one['name'] for one in found] == ['DeepLabv3']
    said = capsys.readouterr().err
    assert f'{RESULTS}:2 is left out' in said
    assert f'{RESULTS}:3 is left out, it lacks config' in said
    assert results_of(Trial('DeepLabv3', DEEPLABV3), found) == {0: found[0]}
    with pytest.raises(GridError, match='Give the changed trial another'):
        results_of(Trial('DeepLabv3', PVD), found)


def test_tables_and_plots(tmp_path):
    grid = load_grid(write(tmp_path / 'grid.yml'))
    options = dict(grid.trials[1].options)
    results = [
        result('DeepLabv3'),
        result('PVD, 3×3', options=options, seconds=2.0, step_seconds=1.0),
        result('PVD, 3×3', 1, options=options, seconds=2.0, step_seconds=1.0),
    ]
    lines = markdown(grid, results).splitlines()
    assert lines[4] == '| DeepLabv3 | 2.00 | 1.00 | 1.00 | 1.00 | 2 | 1 |'
    assert lines[5] == (
        '| PVD, 3×3 | 7.00 (2.00 to 12.00) | '
        '1.00 (1.00 to 1.00) | 0.25 | 0.25 | 2 | 2 |'
    )
    assert '| DeepLabv3 | not run | not run | - | 0 |' in markdown(grid, [])
    # pycocotools gives shares
    shares = dict(result('DeepLabv3'), metrics={'coco/segm_mAP': 0.184})
    detectors = dataclasses.replace(grid, metrics={'mask AP': 'coco/segm_mAP'})
    assert '| DeepLabv3 | 18.40 | 1.00' in markdown(detectors, [shares])
    # what nothing was found of has no figure; others' mean is without it
    nothing = [dict(one, metrics={**one['metrics'], 'mIoU': None}) for one in results]
    assert '| DeepLabv3 | - | 1.00' in markdown(grid, nothing)
    assert '| PVD, 3×3 | 12.00 | 1.00' in markdown(grid, [nothing[1], results[2]])
    # times of trainings side by side say nothing
    crowded = [dict(one, jobs=2) for one in results]
    assert markdown(grid, crowded).splitlines()[4] == (
        '| DeepLabv3 | 2.00 | 1.00 | 2 | 1 |'
    )
    for some, name in (
        (results, 'all.png'),
        (crowded, 'crowded.png'),
        ([dict(one, curve={'2': one['metrics']}) for one in nothing], 'nothing.png'),
        ([], 'none.png'),
    ):
        plot(grid, 'both', some, str(tmp_path / name))
        assert (tmp_path / name).read_bytes()[:4] == b'\x89PNG'


def test_two_runs_at_once(tmp_path):
    grid = load_grid(write(tmp_path / 'grid.yml'))
    (tmp_path / 'out').mkdir()
    with _lock(tmp_path / 'out'), pytest.raises(GridError, match='at work in'):
        run(grid, str(tmp_path / 'out'))
    with _lock(tmp_path / 'out'):
        pass


def test_pages(tmp_path):
    """The tables of a page are made anew, what is around them is kept; a
    page without a known one is refused."""
    grid = load_grid(write(tmp_path / 'grid.yml'))
    page = 'Before.\n\n<!-- table: one -->\nold\n<!-- end -->\n\nAfter.\n'
    new = update_blocks(page, grid, [])
    assert new == (
        f'Before.\n\n<!-- table: one -->\n\n{table(grid, "one", [])}'
        '\n\n<!-- end -->\n\nAfter.\n'
    )
    assert update_blocks(new, grid, []) == new
    with pytest.raises(ValueError, match='blocks are two, the tables both, one'):
        update_blocks(page.replace('one', 'two'), grid, [])


def test_a_resumed_log(tmp_path):
    """Later parts replace what they overlap; half a line is passed over."""
    parts = (('1', [(10, 1.0), (20, 1.0), (30, 9.0)]), ('2', [(30, 2.0)]))
    for part, steps in parts:
        folder = tmp_path / part / 'vis_data'
        folder.mkdir(parents=True)
        lines = [json.dumps(dict(step=step, lr=1.0, time=time)) for step, time in steps]
        lines.append(json.dumps(dict(step=30, mIoU=50.0, time=1.0)))
        lines.append('{"lr": ')
        (folder / 'scalars.json').write_text('\n'.join(lines))
    found = summarize(str(tmp_path))
    assert (found['steps'], found['curve']['30']) == (30, dict(mIoU=50.0))
    assert found['seconds'] == 40.0 and found['step_seconds'] == 1.0
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match='no validation'):
        summarize(str(tmp_path / 'empty'))
    for part in ('1', '2'):  # a training of fewer steps than the logger's interval
        (tmp_path / part / 'vis_data/scalars.json').write_text(lines[-2])
    with pytest.raises(UserError, match='no training step.*logger.interval'):
        summarize(str(tmp_path))


def test_the_tool_trains_once_and_goes_on(tmp_path):
    """Real trainings on the sample: one fails and is reported, the other is
    kept; the second call trains what failed and nothing else."""
    data, out = tmp_path / 'street', tmp_path / 'out'
    make_street_sample(str(data), train=4, val=1)
    short = {
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 1,
        'default_hooks.checkpoint.interval': 1,
        'default_hooks.logger.interval': 1,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
    }
    rows = {
        'DeepLabv3': dict(config=DEEPLABV3, options=short),
        'PVD': dict(config=PVD, options=short),
    }

    def call():
        grid = write(tmp_path / 'grid.yml', tables=dict(both=rows))
        tool = ROOT / 'tools/ablation.py'
        return subprocess.run(
            [sys.executable, str(tool), grid, '--out', str(out), '--data', str(data)],
            capture_output=True,
            text=True,
        )

    rows['PVD']['options'] = {**short, 'model.decode_head.decoder.groups': 7}
    first = call()
    assert first.returncode == 1, first.stdout + first.stderr
    assert 'PVD, seed 0: train.py ended with' in first.stdout
    assert 'groups must divide' in first.stdout
    assert '1 trainings failed' in first.stderr
    assert '| PVD | not run' in first.stdout
    rows['PVD']['options'] = short
    second = call()
    assert second.returncode == 0, second.stdout + second.stderr
    assert 'DeepLabv3, seed 0' not in second.stdout
    results = read_results(str(out))
    assert [one['name'] for one in results] == ['DeepLabv3', 'PVD']
    for one in results:
        assert list(one['curve']) == ['1', '2'] and one['steps'] == 2
        assert 0 <= one['metrics']['mIoU'] <= 100 and one['seconds'] > 0
        assert one['metrics']['mIoU'] == pytest.approx(one['curve']['2']['mIoU'])
        assert 0 <= one['metrics']['mBoundaryIoU'] <= 100
    assert (out / 'both.png').is_file()
    tested, _ = read_records([str(out)])
    assert len(tested) == 2
    assert '| PVD | ' in (out / 'tables.md').read_text()

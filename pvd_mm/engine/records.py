# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What a run has measured, with where it comes from: one small JSON file each.

A record is written once, under a name of its own, and never changed. It is
checked when it is read; a broken one is named, and the others are used.

===========  ===============================================================
key          meaning
===========  ===============================================================
format       1
kind         'test', or 'model', 'op', 'backends', 'exported' or 'gpu' for the
             benchmarks
date         UTC, ISO 8601
command      the command line
machine      processor and threads, or GPU
versions     of Python and the packages
result       figures: of a test the metrics by name, None for what is not a
             number; else what the benchmark of that kind has measured
config       test: path or name of the config, as it was given
shipped      test: the shipped config that this is, by name; None where it is
             one's own, or a changed copy
overrides    test: its overrides, dotted key to value
checkpoint   test: path and SHA-256
steps, seed  test: of the training, None where the checkpoint does not say
finished     test: whether that was the config's whole schedule, or None
data         test: class, split, number of images and of images per folder
===========  ===============================================================
"""

import hashlib
import json
import math
import platform
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from pvd_mm.utils.files import write_text
from pvd_mm.utils.machine import describe_machine

FOLDER = 'records'
FORMAT = 1
_PACKAGES = (
    'torch',
    'numpy',
    'pvd_mm',
    'mmengine',
    'mmcv',
    'mmsegmentation',
    'mmdet',
    'onedl-mmengine',
    'onedl-mmcv',
    'onedl-mmsegmentation',
    'onedl-mmdetection',
    'onnx',
    'onnxruntime',
)
# What a record holds, by kind: key to what its value is. In a list every entry
# is described, in a tuple any of several types will do.
_NUMBER = (int, float)
_ALWAYS = dict(format=int, kind=str, date=str, command=str, machine=str, versions=dict)
_KINDS = dict(
    test=dict(
        result=dict,
        config=str,
        overrides=dict,
        checkpoint=dict(path=str),
        data=dict(type=str, images=int, folders=dict),
    ),
    model=dict(result=[dict(name=str, params=_NUMBER)]),
    op=dict(
        result=dict(
            machine=str,
            threads=int,
            best=str,
            settings=dict(
                channels=int,
                dtype=str,
                device=str,
                formulation=str,
                sizes=[int],
                strides=[int],
            ),
            times=[
                dict(
                    name=str,
                    size=int,
                    stride=int,
                    kind=str,
                    median_s=_NUMBER,
                    scale=_NUMBER,
                )
            ],
            memory=[
                dict(
                    name=str,
                    size=int,
                    stride=int,
                    kind=str,
                    peak_mib=_NUMBER,
                    scale=_NUMBER,
                )
            ],
        )
    ),
    gpu=dict(
        result=dict(
            description=str,
            self_checks=[
                dict(dtype=str, formulation=str, seconds=_NUMBER, problem=str)
            ],
        )
    ),
    backends=dict(
        result=[
            dict(name=str, part=str, ratio=_NUMBER, seconds=dict, quartiles=[_NUMBER])
        ]
    ),
    exported=dict(
        result=dict(
            threads=int,
            sizes=[[int]],
            models=[dict(name=str, config=str, problem=str)],
        )
    ),
)


def _versions() -> dict:
    versions = {'python': platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def new_record(kind: str, result: Any, device: str | None = None, **more: Any) -> dict:
    """A record of what the present process has measured.

    Args:
        kind (str): 'test', 'model', 'op', 'backends', 'exported' or 'gpu'.
        result (dict | list): The figures.
        device (str, optional): What they were measured on. Defaults to None: a
            GPU if there is one.
        **more: Further keys; those of a test.

    Raises:
        ValueError: If it would not pass its own check.
    """
    script = Path(sys.argv[0]).name
    record = dict(
        format=FORMAT,
        kind=kind,
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        command=shlex.join([f'tools/{script}', *sys.argv[1:]]),
        machine=describe_machine(device or get_device()),
        versions=_versions(),
        result=result,
        **more,
    )
    # as it will be read: tuples become lists, keys become strings
    record = json.loads(json.dumps(record, default=_plain))
    wrong = check_record(record)
    if wrong:
        raise ValueError(f'not a record: {wrong}')
    return record


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, 'item') else str(value)


def check_record(record: Any) -> str:
    """What is wrong with a record, '' if nothing is."""
    if not isinstance(record, dict):
        return f'it is a {type(record).__name__}, not an object'
    if record.get('format') != FORMAT:
        return f'its format is {record.get("format")!r}, this reads {FORMAT}'
    kind = record.get('kind')
    if kind not in _KINDS:
        return f'its kind is {kind!r}, none of {", ".join(_KINDS)}'
    wrong = _misfit(record, {**_ALWAYS, **_KINDS[kind]})
    if wrong:
        return wrong
    try:
        datetime.fromisoformat(record['date'])
    except ValueError:
        return f'its date is {record["date"]!r}, not ISO 8601'
    if kind == 'test':
        bad = [
            name
            for name, value in record['result'].items()
            if value is not None and not _is_a(value, _NUMBER)
        ]
        if bad:
            return f'the metrics {", ".join(bad)} are no numbers'
    return ''


def _is_a(value: Any, kinds: Any) -> bool:
    # True and False are integers to Python
    return isinstance(value, kinds) and not isinstance(value, bool)


def _misfit(value: Any, wanted: Any, place: str = '') -> str:
    """Where a value is not as described, '' where it is."""
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            wanted = dict
        else:
            misfits = (
                _misfit(value.get(key), inner, f'{place}.{key}'.lstrip('.'))
                for key, inner in wanted.items()
            )
            return next(filter(None, misfits), '')
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            wanted = list
        else:
            misfits = (
                _misfit(item, wanted[0], f'{place}[{i}]')
                for i, item in enumerate(value)
            )
            return next(filter(None, misfits), '')
    if _is_a(value, wanted):
        return ''
    kinds = wanted if isinstance(wanted, tuple) else (wanted,)
    return (
        f'{place} must be of type {" or ".join(k.__name__ for k in kinds)}, '
        f'but is {str(value)[:60]!r}'
    )


def write_record(folder: str, record: dict) -> Path:
    """Write a record into ``folder/records``, whole or not at all, beside
    all that are there.

    Returns:
        Path: Its file.
    """
    out = Path(folder) / FOLDER
    text = json.dumps(record, indent=1, ensure_ascii=False) + '\n'
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    words = [
        record['kind'],
        Path(record.get('config', '')).stem,
        re.sub(r'\D', '', record['date'])[:14],
        digest,
    ]
    path = out / ('-'.join(word for word in words if word) + '.json')
    if path.exists():
        return path  # the digest is in the name: it is the same record
    write_text(path, text)
    return path


def read_records(places: Iterable[str]) -> tuple[list[dict], list[str]]:
    """Read all records below some folders.

    Returns:
        tuple[list[dict], list[str]]: The records, oldest first, each with its
        ``path``, copies of one record once; and a message for each file that
        is none.
    """
    records, broken = {}, []
    paths = {
        path.resolve()
        for place in places
        for path in Path(place).rglob(f'{FOLDER}/*.json')
    }
    for path in sorted(paths):
        try:
            record = json.loads(path.read_text(encoding='utf-8'))
            wrong = check_record(record)
        except (OSError, ValueError) as error:
            wrong = f'it cannot be read: {error}'
        if wrong:
            broken.append(f'{path} is left out: {wrong}')
        else:
            records.setdefault(json.dumps(record), dict(record, path=str(path)))
    return sorted(records.values(), key=_age), broken


def _age(record: dict) -> datetime:
    date = datetime.fromisoformat(record['date'])
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)


# --------------------------------------------------------------- of a test


def _sha256(path: str) -> str | None:
    if not Path(path).is_file():
        return None  # an address
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe_data(dataset) -> dict:
    """Which images a test was on: class of the data set, split, number, and
    number in each folder."""
    prefix = getattr(dataset, 'data_prefix', {})
    images = str(prefix.get('img_path', prefix.get('img', '')))
    paths = [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]
    folders = Counter(Path(path).parent.name for path in paths)
    return dict(
        type=type(dataset).__name__,
        split=Path(images).name,
        images=len(paths),
        folders=dict(folders.most_common(50)),
        classes=len(dataset.metainfo.get('classes') or ()),
    )


def is_finished(cfg: Config, meta: dict) -> bool | None:
    """Whether a checkpoint has been trained as long as its config says.

    Args:
        cfg (Config): The config.
        meta (dict): ``meta`` of the checkpoint.

    Returns:
        bool | None: None where one of them does not tell.
    """
    schedule = cfg.get('train_cfg') or {}
    for key, limit in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
        if schedule.get(limit):
            return None if meta.get(key) is None else meta[key] >= schedule[limit]
    return None


@HOOKS.register_module()
class RecordHook(Hook):
    """Leaves a record of a test in ``<work dir>/records``.

    Args:
        config (str): The config as the user gave it.
        overrides (dict, optional): Its overrides.
        shipped (str, optional): Name of the shipped config that it is.
    """

    priority = 'LOWEST'

    def __init__(
        self, config: str, overrides: dict | None = None, shipped: str | None = None
    ) -> None:
        self.config = config
        self.overrides = dict(overrides or {})
        self.shipped = shipped
        self.meta = {}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep what the checkpoint says of its training."""
        meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else {}
        self.meta = meta if isinstance(meta, dict) else {}

    @master_only
    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        """Write the record; a disk that is full does not fail the test."""
        checkpoint = str(runner._load_from)
        try:
            record = new_record(
                'test',
                _numbers(metrics or {}),
                config=self.config,
                shipped=self.shipped,
                overrides=self.overrides,
                checkpoint=dict(path=checkpoint, sha256=_sha256(checkpoint)),
                steps=self.meta.get('iter'),
                seed=self.meta.get('seed'),
                finished=is_finished(runner.cfg, self.meta),
                data=describe_data(runner.test_dataloader.dataset),
            )
            path = write_record(runner.work_dir, record)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            print_log(f'No record of this test: {error}', logger='current')
            return
        print_log(f'Record of this test: {path}', logger='current')


def _numbers(metrics: dict) -> dict:
    """Metrics that are numbers; None for those that are not finite, such as
    the IoU of a class that does not occur."""
    numbers = {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) or hasattr(value, 'item')
    }
    return {
        name: value if math.isfinite(value) else None for name, value in numbers.items()
    }


def records_of(records: Sequence[dict], kind: str) -> list[dict]:
    """Those of a kind."""
    return [record for record in records if record['kind'] == kind]

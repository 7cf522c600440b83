# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What a run has found, with where it comes from: one small JSON file each.

A record is written once, under a name of its own, and never changed. It is
checked when it is read; a broken one is named, and the others are used.

===========  ===============================================================
key          meaning
===========  ===============================================================
format       1
kind         'test', or 'model', 'op' or 'backends' for the benchmarks
date         UTC, ISO 8601
command      the command line
machine      processor or GPU, threads
versions     of Python and the packages
result       figures: of a test the metrics by name, else what the benchmark
             of that kind has measured
config       test: path or name of the config
overrides    test: its overrides, dotted key to value
checkpoint   test: path and SHA-256
steps, seed  test: of the training, None where the checkpoint does not say
data         test: class, split, number of images and of images per folder
===========  ===============================================================
"""

import hashlib
import json
import os
import platform
import re
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

FOLDER = 'records'
FORMAT = 1
_PACKAGES = ('torch', 'numpy', 'pvd_mm', 'mmengine', 'mmcv', 'mmsegmentation',
             'mmdet', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation',
             'onedl-mmdetection')
_KINDS = {'test': dict, 'model': list, 'op': dict, 'backends': list}
_ALWAYS = dict(format=int, kind=str, date=str, command=str, machine=str,
               versions=dict)
_OF_A_TEST = dict(config=str, overrides=dict, checkpoint=dict, data=dict)


def _versions() -> dict:
    found = {'python': platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'{platform.machine()} CPU, {torch.get_num_threads()} threads'


def new_record(kind: str, result, **more) -> dict:
    """A record of what the present process has found.

    Args:
        kind (str): 'test', 'model', 'op' or 'backends'.
        result (dict | list): The figures.
        **more: Further keys; those of a test.

    Raises:
        ValueError: If it would not pass its own check.
    """
    script = Path(sys.argv[0]).name
    record = dict(
        format=FORMAT, kind=kind,
        date=datetime.now(timezone.utc).isoformat(timespec='seconds'),
        command=shlex.join([f'tools/{script}', *sys.argv[1:]]),
        machine=_machine(), versions=_versions(), result=result, **more)
    # as it will be read: tuples become lists, keys become strings
    record = json.loads(json.dumps(record, default=float))
    wrong = check_record(record)
    if wrong:
        raise ValueError(f'not a record: {wrong}')
    return record


def check_record(record) -> str:
    """What is wrong with a record, '' if nothing is."""
    if not isinstance(record, dict):
        return f'it is a {type(record).__name__}, not an object'
    if record.get('format') != FORMAT:
        return f'its format is {record.get("format")!r}, this reads {FORMAT}'
    kind = record.get('kind')
    if kind not in _KINDS:
        return f'its kind is {kind!r}, none of {", ".join(_KINDS)}'
    wanted = dict(_ALWAYS, result=_KINDS[kind])
    if kind == 'test':
        wanted |= _OF_A_TEST
    for key, kinds in wanted.items():
        if not isinstance(record.get(key), kinds):
            return f'{key} must be a {kinds.__name__}, but is ' \
                   f'{str(record.get(key))[:60]!r}'
    if kind == 'test':
        if not isinstance(record['data'].get('images'), int):
            return 'data must give the number of images'
        bad = [k for k, v in record['result'].items()
               if not isinstance(v, (int, float))]
        if bad:
            return f'the metrics {", ".join(bad)} are no numbers'
    return ''


def write_record(folder: str, record: dict) -> Path:
    """Write a record into ``folder/records``, whole or not at all, beside
    all that are there.

    Returns:
        Path: Its file.
    """
    out = Path(folder) / FOLDER
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False) + '\n'
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    words = [record['kind'], Path(record.get('config', '')).stem,
             re.sub(r'\D', '', record['date'])[:14], digest]
    path = out / ('-'.join(word for word in words if word) + '.json')
    handle, temporary = tempfile.mkstemp(dir=out, prefix='.', suffix='.tmp')
    try:
        with open(handle, 'w', encoding='utf-8') as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # fails where the name is taken
        except FileExistsError:
            pass  # the digest is in the name: it is the same record
    finally:
        os.unlink(temporary)
    return path


def read_records(places: Iterable[str]) -> tuple[list[dict], list[str]]:
    """Read all records below some folders.

    Returns:
        tuple[list[dict], list[str]]: The records, oldest first, each with its
        ``path``; and a message for each file that is none.
    """
    records, broken = [], []
    paths = {path.resolve() for place in places
             for path in Path(place).rglob(f'{FOLDER}/*.json')}
    for path in sorted(paths):
        try:
            record = json.loads(path.read_text(encoding='utf-8'))
            wrong = check_record(record)
        except (OSError, ValueError) as error:
            wrong = f'it cannot be read: {error}'
        if wrong:
            broken.append(f'{path} is left out: {wrong}')
        else:
            records.append(dict(record, path=str(path)))
    return sorted(records, key=lambda one: one['date']), broken


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
        type=type(dataset).__name__, split=Path(images).name,
        images=len(paths), folders=dict(folders.most_common(50)),
        classes=len(dataset.metainfo.get('classes') or ()))


@HOOKS.register_module()
class RecordHook(Hook):
    """Leaves a record of a test in ``<work dir>/records``.

    Args:
        config (str): The config as the user gave it.
        overrides (dict, optional): Its overrides.
    """

    priority = 'LOWEST'

    def __init__(self, config: str, overrides: dict | None = None) -> None:
        self.config = config
        self.overrides = dict(overrides or {})
        self.meta = {}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep what the checkpoint says of its training."""
        found = checkpoint.get('meta') if isinstance(checkpoint, dict) else {}
        self.meta = found if isinstance(found, dict) else {}

    @master_only
    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        """Write the record; a disk that is full does not fail the test."""
        checkpoint = str(runner._load_from)
        try:
            record = new_record(
                'test',
                {k: float(v) for k, v in (metrics or {}).items()
                 if isinstance(v, (int, float)) or hasattr(v, 'item')},
                config=self.config, overrides=self.overrides,
                checkpoint=dict(path=checkpoint, sha256=_sha256(checkpoint)),
                steps=self.meta.get('iter'), seed=self.meta.get('seed'),
                data=describe_data(runner.test_dataloader.dataset))
            path = write_record(runner.work_dir, record)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            print_log(f'No record of this test: {error}', logger='current')
            return
        print_log(f'Record of this test: {path}', logger='current')


def records_of(records: Sequence[dict], kind: str) -> list[dict]:
    """Those of a kind."""
    return [one for one in records if one['kind'] == kind]

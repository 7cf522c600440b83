# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Exported segmentors in onnxruntime, and the same models in PyTorch, side by side:
time, peak memory, size of the file, and what its time goes into.

All models have random weights and go from the raw image to the label map. All that is
measured stands in ``progress.json`` at once, a record of :mod:`pvd_mm.engine.records`,
from which an interrupted measurement goes on.
"""

import gc
import json
import multiprocessing
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import nn

from pvd_mm import register_all_modules
from pvd_mm.apis.complexity import count_params
from pvd_mm.apis.export import WholeSegmentor, export
from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.engine.config import load_config
from pvd_mm.engine.records import check_record, new_record
from pvd_mm.utils.config_types import dataset_configs, framework_of
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.files import make_folder, write_text
from pvd_mm.utils.markdown import markdown_table
from pvd_mm.utils.timing import take_turns

from .base import random_model

PROGRESS = 'progress.json'

#: Two logits may differ by this share of the largest one.
TOLERANCE = 1e-3
#: Of the images that the files are exported and compared with.
_SMALL = 128, 256
_LARGEST_OPERATORS = 5

Run = Callable[[], object]


class Candidate(NamedTuple):
    """A model that is measured."""

    name: str
    config: str  # path, name of a shipped one, or mmseg::FOLDER/NAME.py
    options: dict = {}
    fixed: bool = False  # exported for each size: its maps don't fit at all sizes


_19_CLASSES = {'model.decode_head.num_classes': 19}
#: PVD, its baselines, and mmseg's models for real time, with 19 classes.
CANDIDATES = (
    Candidate('PVD stage R18', 'pvd_r18-stage_1xb4-90k_cityscapes-512x1024'),
    Candidate('PVD full R18', 'pvd_r18-full_1xb4-90k_cityscapes-512x1024'),
    Candidate(
        'PVD stage Lite0',
        'pvd_efficientnet-lite0-stage_1xb4-2k_camvid-240x320',
        _19_CLASSES,
    ),
    Candidate(
        'PVD full Lite0',
        'pvd_efficientnet-lite0-full_1xb4-2k_camvid-240x320',
        _19_CLASSES,
    ),
    Candidate(
        'PVD full-e64 Lite0',
        'pvd_efficientnet-lite0-full-e64_1xb4-2k_camvid-240x320',
        _19_CLASSES,
    ),
    Candidate('PVD stage R50', 'pvd_r50-stage_1xb4-90k_cityscapes-512x1024'),
    Candidate('DeepLabv3 R18-D8', 'deeplabv3_r18-d8_1xb4-90k_cityscapes-512x1024'),
    Candidate(
        'Semantic FPN R18',
        'mmseg::sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py',
        {'model.backbone.depth': 18, 'model.neck.in_channels': [64, 128, 256, 512]},
    ),
    Candidate(
        'Semantic FPN Lite0',
        'fpn_efficientnet-lite0_1xb4-2k_camvid-240x320',
        _19_CLASSES,
    ),
    Candidate(
        'BiSeNetV2',
        'mmseg::bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py',
    ),
    Candidate(
        'STDC1', 'mmseg::stdc/stdc1_4xb12-80k_cityscapes-512x1024.py', fixed=True
    ),
    Candidate(
        'PIDNet-S',
        'mmseg::pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py',
        fixed=True,
    ),
    Candidate(
        'DDRNet-23-slim',
        'mmseg::ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py',
        fixed=True,
    ),
    Candidate(
        'Fast-SCNN', 'mmseg::fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py'
    ),
    Candidate(
        'SegFormer-B0',
        'mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py',
    ),
)


def benchmark(
    candidates: Sequence[Candidate],
    folder: str,
    sizes: Sequence[tuple[int, int]],
    rounds: int = 5,
    threads: int | None = None,
    report: Callable[[str], None] = print,
) -> dict:
    """Export models and measure them, in turn, in onnxruntime and in PyTorch.

    A model that cannot be exported or run is left out from there on, and says why.

    Args:
        candidates (Sequence[Candidate]): What is measured; the first one is what the
            others are compared with.
        folder (str): Gets the files, and the progress, which is gone on with.
        sizes (Sequence[tuple[int, int]]): Heights and widths of the image.
        rounds (int): Timed runs of each, after an untimed one each. Defaults to 5.
        threads (int, optional): Of both runtimes. Defaults to None: as torch has.
        report (Callable): Called with a line after each measurement.

    Returns:
        dict: ``threads``, ``sizes`` and ``models``, for each its ``name``, ``config``
        and ``problem``, '' where there is none; and as far as it came ``params``,
        ``bytes`` of the file, its ``nodes``, largest ``difference`` from the model and
        ``largest`` logit, and whether it is ``fixed``, a file for each size;
        ``operators``, the share of each kind in the time of the file at the first
        size; and ``runs``: by ``runtime`` and ``size`` the
        ``seconds`` of all rounds, and ``peak_mib``, the memory of a process of its own
        while it runs, weights included and imports not (None but on Linux).

    Raises:
        UserError: The progress in the folder is of other sizes, threads or versions,
            or of another machine, or cannot be read.
    """
    if threads:
        torch.set_num_threads(threads)
    result = dict(threads=torch.get_num_threads(), sizes=sizes, models=[])
    progress = _Progress(make_folder(folder) / PROGRESS, result)
    found = {}
    for candidate in candidates:
        model = found[candidate.name] = progress.of(candidate)
        if not model['problem'] and 'runs' not in model:
            with _noted(model):
                _export(candidate, progress.stem(model), sizes, model)
                _profile(progress.stem(model), sizes[0], result['threads'], model)
                model['runs'] = []
        progress.save()
        report(f'{candidate.name}: {model["problem"] or "exported"}')
    for name, model in found.items():
        with _noted(model):
            for runtime in _RUNTIMES:
                for size in sizes:
                    if model['problem'] or _run_of(model, runtime, size):
                        continue
                    arguments = runtime, str(progress.stem(model)), size
                    peak = _in_own_process(*arguments, result['threads'])
                    run = dict(runtime=runtime, size=size, peak_mib=peak, seconds=[])
                    model['runs'].append(run)
                    progress.save()
                    report(f'{name}, {_pass(run)}: {peak or 0:.0f} MiB')
    _time(progress, found, rounds, report)
    return dict(
        progress.result,
        models=[model for model in progress.result['models'] if model['name'] in found],
    )


class _Progress:
    """The file of all that is measured."""

    def __init__(self, path: Path, result: dict) -> None:
        self.path = path
        self.record = new_record('exported', result, 'cpu')
        if not path.exists():
            return
        try:
            old = json.loads(path.read_text(encoding='utf-8'))
            wrong = check_record(old)
        except (OSError, ValueError) as error:
            wrong = f'it cannot be read: {error}'
        for key in ('threads', 'sizes'):
            if not wrong and old['result'][key] != self.result[key]:
                wrong = f'its {key} are {old["result"][key]}, not {self.result[key]}'
        for key in ('machine', 'versions'):
            if not wrong and old[key] != self.record[key]:
                wrong = f'its {key} are others: {old[key]}'
        if wrong:
            raise UserError(f'{path} cannot be gone on with: {wrong}')
        self.record = old

    @property
    def result(self) -> dict:
        return self.record['result']

    def of(self, candidate: Candidate) -> dict:
        for model in self.result['models']:
            if model['name'] == candidate.name:
                return model
        about = dict(name=candidate.name, config=candidate.config, problem='')
        self.result['models'].append(about)
        return about

    def stem(self, model: dict) -> Path:
        """Of the model's files, without suffix."""
        return self.path.parent / model['name'].replace(' ', '-')

    def save(self) -> None:
        write_text(self.path, json.dumps(self.record, indent=1))


@contextmanager
def _noted(model: dict):
    """Note what goes wrong: the other models are still to be measured."""
    try:
        yield
    except Exception as error:  # of any kind, from exporters and runtimes
        words = str(error).strip().splitlines() or ['']
        kind = '' if isinstance(error, UserError) else f'{type(error).__name__}: '
        model['problem'] = kind + words[0]


# -- files --------------------------------------------------------------------------


def _find(config: str) -> str:
    """A config of mmseg's own stands in its package, whichever stack it is of."""
    scope, _, name = config.rpartition('::')
    if not scope:
        return config
    import mmseg

    path = Path(mmseg.__file__).parent / '.mim/configs' / name
    if scope != 'mmseg' or not path.is_file():
        raise UserError(f'{config} is no config of mmseg: {path} does not exist')
    return str(path)


def _name(stem: Path | str, size: Sequence[int] | None) -> str:
    return '{}-{}x{}.onnx'.format(stem, *size) if size else f'{stem}.onnx'


def _file(stem: Path | str, size: Sequence[int]) -> str:
    """The file for images of a size: that of any size, if it has none of its own."""
    own = _name(stem, size)
    return own if Path(own).exists() else _name(stem, None)


def _export(
    candidate: Candidate, stem: Path, sizes: Sequence[Sequence[int]], about: dict
) -> None:
    """Write config, random weights and file, or one for each size, and compare them."""
    cfg = load_config(_find(candidate.config), cfg_options=candidate.options)
    if framework_of(cfg) != 'mmseg':
        raise UserError('it is no segmentor')
    for name in ('pretrained', 'auxiliary_head'):
        cfg.model.pop(name, None)
    for dataset in dataset_configs(cfg.test_dataloader.dataset):
        dataset.pipeline = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    files = {end: f'{stem}{end}' for end in ('.py', '.pth', '.png')}
    cfg.dump(files['.py'])
    model = random_model(cfg)
    _settle(model)
    torch.save(dict(meta={}, state_dict=model.state_dict()), files['.pth'])
    cv2.imwrite(files['.png'], np.random.randint(0, 256, (*_SMALL, 3), np.uint8))
    proofs = {}
    for size in sizes if candidate.fixed else [None]:
        file = _name(stem, size)
        proof = proofs[file] = export(
            files['.py'],
            files['.pth'],
            file,
            size=size,
            images=[files['.png']],
            number=1,
            agreement=0,  # of random weights; the logits tell
            force=True,
        )
        if not proof.difference <= TOLERANCE * proof.largest:
            raise UserError(
                f'its logits, up to {proof.largest:.3g}, differ from those of the '
                f'model by {proof.difference:.3g}'
            )
    import onnx

    file, proof = max(proofs.items(), key=lambda entry: entry[1].difference)
    about.update(
        params=count_params(model),
        bytes=Path(file).stat().st_size,
        nodes=len(onnx.load(file).graph.node),
        difference=proof.difference,
        largest=proof.largest,
        fixed=candidate.fixed,
    )


def _settle(model: nn.Module) -> None:
    """Give batch norms the statistics of a batch: with those that they begin with,
    what random weights compute shrinks or grows from layer to layer."""
    norms = [
        x for x in model.modules() if isinstance(x, nn.modules.batchnorm._BatchNorm)
    ]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        model(torch.randn(2, 3, *_SMALL), mode='tensor')


# -- runtimes -----------------------------------------------------------------------


def _image(size: Sequence[int]) -> np.ndarray:
    random = np.random.RandomState(0)
    return random.randint(0, 256, (1, 3, *size)).astype(np.float32)


def _session(path: str, threads: int, profile: str = ''):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = bool(profile)
    options.profile_file_prefix = profile
    providers = ['CPUExecutionProvider']
    return onnxruntime.InferenceSession(path, options, providers=providers)


_kept_session = cache(_session)  # one for all sizes


def _in_onnxruntime(stem: str, size: Sequence[int], threads: int) -> Run:
    session, image = _kept_session(_file(stem, size), threads), _image(size)
    return lambda: session.run(None, dict(image=image))


@cache
def _model(stem: str) -> WholeSegmentor:
    model = load_inferencer(f'{stem}.py', f'{stem}.pth', device='cpu').model
    model.test_cfg['mode'] = 'whole'
    return WholeSegmentor(model)


def _in_torch(stem: str, size: Sequence[int], threads: int) -> Run:
    model, image = _model(stem), torch.from_numpy(_image(size))

    @torch.inference_mode()
    def run() -> object:
        return model(image)

    return run


_RUNTIMES = dict(onnxruntime=_in_onnxruntime, PyTorch=_in_torch)


def _run_of(model: dict, runtime: str, size: Sequence[int]) -> dict | None:
    for run in model.get('runs', ()):
        if run['runtime'] == runtime and list(run['size']) == list(size):
            return run
    return None


def _pass(run: dict) -> str:
    return '{}, {}×{}'.format(run['runtime'], *run['size'])


def _time(progress: _Progress, found: dict, rounds: int, report: Callable) -> None:
    """All of them in turn: noise is everybody's."""
    threads, passes = progress.result['threads'], {}
    for name, model in found.items():
        with _noted(model):
            stem = str(progress.stem(model))
            for run in [] if model['problem'] else model['runs']:
                action = _RUNTIMES[run['runtime']](stem, run['size'], threads)
                passes[f'{name}, {_pass(run)}'] = run, action

    def keep(name: str, seconds: float) -> None:
        run, _ = passes[name]
        run['seconds'].append(seconds)
        progress.save()
        report(f'{len(run["seconds"])}/{rounds}, {name}: {1e3 * seconds:.1f} ms')

    take_turns(
        {name: action for name, (_, action) in passes.items()},
        {name: rounds - len(run['seconds']) for name, (run, _) in passes.items()},
        warm_up=1,  # the threads of the other runtime still spin for a moment
        report=keep,
    )


def _profile(stem: Path, size: Sequence[int], threads: int, about: dict) -> None:
    """Which operators the time of a file goes into."""
    seconds = Counter()
    with tempfile.TemporaryDirectory() as folder:
        session = _session(_file(stem, size), threads, f'{folder}/profile')
        for _ in range(3):
            session.run(None, dict(image=_image(size)))
        events = json.loads(Path(session.end_profiling()).read_text())
    for event in events:
        if event['name'].endswith('_kernel_time'):
            seconds[event['args']['op_name']] += event['dur']
    total = sum(seconds.values())
    about['operators'] = {kind: part / total for kind, part in seconds.most_common()}


# -- memory -------------------------------------------------------------------------


def _in_own_process(*arguments) -> float | None:
    """:func:`_peak` in a process that does nothing else, a copy of one that has
    imported all."""
    if not Path('/proc/self/clear_refs').exists():
        return None
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmseg.apis', 'pvd_mm.apis.export', 'onnxruntime'])
    with ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(_peak, *arguments).result()
        except BrokenProcessPool as error:
            runtime, _, size, _ = arguments
            run = dict(runtime=runtime, size=size)
            raise UserError(f'{_pass(run)}: the process was killed') from error


def _peak(runtime: str, stem: str, size: Sequence[int], threads: int) -> float:
    """MiB that this process holds at most while a model runs, beyond what it holds
    without the model."""
    import mmseg.apis  # noqa: F401
    import onnxruntime  # noqa: F401

    register_all_modules()
    torch.set_num_threads(threads)
    gc.collect()
    before = _held('VmRSS')
    run = _RUNTIMES[runtime](stem, size, threads)
    gc.collect()
    Path('/proc/self/clear_refs').write_text('5')  # from here on counts VmHWM
    for _ in range(2):
        run()
    return _held('VmHWM') - before


def _held(what: str) -> float:
    lines = Path('/proc/self/status').read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f'{what}:'))
    return int(line.split()[1]) / 1024


# -- tables -------------------------------------------------------------------------


def markdown(result: dict) -> str:
    """Tables of the result of :func:`benchmark`: one for each size, one of the
    operators, and what went wrong."""
    models = [model for model in result['models'] if model.get('runs')]
    parts = []
    for size in result['sizes']:
        head = ['{}×{}'.format(*size), 'file (MB)']
        for runtime in _RUNTIMES:
            head += [f'{runtime} (ms)', 'quartiles', 'ratio', 'peak (MiB)']
        rows = []
        for model in models:
            row = [model['name'], f'{model["bytes"] / 1e6:.1f}']
            for runtime in _RUNTIMES:
                base = _run_of(models[0], runtime, size)
                row += _cells(_run_of(model, runtime, size), base)
            rows.append(row)
        parts.append(markdown_table(head, rows))
    parts.append(_operators(models))
    problems = [model for model in result['models'] if model['problem']]
    parts += [f'- {model["name"]}: {model["problem"]}' for model in problems]
    return '\n\n'.join(parts)


def _cells(run: dict | None, base: dict | None) -> list[str]:
    if not run or not run['seconds']:
        return ['–'] * 4
    times = [1e3 * seconds for seconds in run['seconds']]
    low, middle, high = np.quantile(times, (0.25, 0.5, 0.75))
    ratio = peak = '–'
    if base and base['seconds']:
        ratio = f'{middle / 1e3 / statistics.median(base["seconds"]):.2f}'
    if run['peak_mib'] is not None:
        peak = f'{run["peak_mib"]:.0f}'
    return [f'{middle:.0f}', f'{low:.0f} to {high:.0f}', ratio, peak]


def _operators(models: Sequence[dict]) -> str:
    total = sum((Counter(model['operators']) for model in models), Counter())
    kinds = [kind for kind, _ in total.most_common(_LARGEST_OPERATORS)]
    if any('Col2Im' in model['operators'] for model in models):
        kinds.append('Col2Im')
    kinds = list(dict.fromkeys(kinds))
    head = ['share of the time in onnxruntime (%)', *kinds, 'others', 'nodes']
    rows = []
    for model in models:
        shares = [100 * model['operators'].get(kind, 0) for kind in kinds]
        shares.append(100 - sum(shares))
        cells = [f'{share:.1f}' for share in shares]
        rows.append([model['name'], *cells, str(model['nodes'])])
    return markdown_table(head, rows)

# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Registering what pvd_mm has for mmengine, mmseg and mmdet, whichever is imported
first.

``import pvd_mm`` puts a finder on ``sys.meta_path`` that finds nothing itself: it
notes which modules of those packages have been executed. As soon as no import of
them, or of pvd_mm, is under way, it runs the steps of ``_STEPS`` whose modules
are there. So a class of ours is registered when upstream's own of its registry
are, upstream is patched before a caller gets hold of it, and nothing is imported
that nobody asked for.
"""

import importlib
import importlib.util
import sys
import threading
import warnings
from collections.abc import Callable
from types import ModuleType

from .environment import INSTALL_HINT, add_remedy

#: Our package -> the framework that it registers in.
FRAMEWORKS = {'pvd_mm.semantic': 'mmseg', 'pvd_mm.instance': 'mmdet'}
_REGISTERING = ('models', 'datasets', 'evaluation')


def _patch(*names: str) -> None:
    compatibility = importlib.import_module('pvd_mm.engine.compatibility')
    for name in names:
        getattr(compatibility, name)()


def _after_mmengine() -> None:
    _patch('add_package_names', 'add_registry_locations', 'resolve_own_bases')


def _after_torch() -> None:
    _patch('allow_checkpoint_classes')


def _after_hub() -> None:
    _patch('resolve_own_hub_configs')


def _after_runner() -> None:
    _patch('forbid_unsafe_loading', 'checkpoint_without_reentry')


def _register(registry: str) -> None:
    compatibility = importlib.import_module('pvd_mm.engine.compatibility')
    for name in compatibility.own_modules(registry):
        importlib.import_module(name)


def _after_hooks() -> None:
    _register('HOOKS')


def _after_optim() -> None:
    _register('OPTIM_WRAPPERS')


def _after_model() -> None:
    _register('MODELS')


def _after_mmseg() -> None:
    importlib.import_module('pvd_mm.semantic')
    _patch('ignore_pixels_in_class_weights', 'predict_binary_labels')


def _after_mmdet() -> None:
    importlib.import_module('pvd_mm.instance')
    importlib.import_module('pvd_mm.panoptic')
    _patch(
        'align_any_layout',
        'support_bfloat16_in_detectors',
        'evaluate_all_annotations',
    )


#: What follows once all of some modules have been imported. Those that we register
#: after are the ``locations`` of upstream's registries.
_STEPS: dict[tuple[str, ...], Callable[[], None]] = {
    ('mmengine',): _after_mmengine,
    ('mmengine', 'torch'): _after_torch,
    ('mmengine.hub',): _after_hub,
    ('mmengine.runner',): _after_runner,
    ('mmengine.hooks',): _after_hooks,
    ('mmengine.optim',): _after_optim,
    ('mmengine.model',): _after_model,
    **{(f'mmseg.{part}',): _after_mmseg for part in _REGISTERING},
    **{(f'mmdet.{part}',): _after_mmdet for part in _REGISTERING},
}
_PACKAGES = ('mmcv', 'mmdet', 'mmengine', 'mmseg', 'pvd_mm')


class _NotingLoader:
    """A module's loader, with a word to the finder before and after."""

    def __init__(self, loader, finder: '_Finder') -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str):
        return getattr(self.__dict__['_loader'], name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # nothing of this class is left on the module
        module.__loader__ = module.__spec__.loader = self._loader
        with self._finder:
            try:
                self._loader.exec_module(module)
            except ImportError as error:
                add_remedy(error)
                raise
            self._finder.executed.add(module.__name__)


class _Finder:
    """Notes what is executed, and runs each step once; see the module.

    As a context manager it is an import that is under way; they nest, each thread
    has its own.
    """

    def __init__(self) -> None:
        self.executed: set[str] = set()
        self._steps = dict(_STEPS)
        self._thread = threading.local()

    def find_spec(self, name: str, path=None, target=None):
        if name != 'torch' and name.partition('.')[0] not in _PACKAGES:
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, 'find_spec'):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    if hasattr(spec.loader, 'exec_module'):
                        spec.loader = _NotingLoader(spec.loader, self)
                    return spec
        return None

    def __enter__(self) -> None:
        self._thread.depth = getattr(self._thread, 'depth', 0) + 1

    def __exit__(self, *error) -> None:
        try:
            if self._thread.depth == 1:
                self._run_steps()
        finally:
            self._thread.depth -= 1

    def _is_ready(self, name: str) -> bool:
        if name in self.executed:
            return name in sys.modules
        spec = getattr(sys.modules.get(name), '__spec__', None)
        return spec is not None and not getattr(spec, '_initializing', False)

    def _run_steps(self) -> None:
        while self._steps:
            for names in list(self._steps):
                if all(map(self._is_ready, names)):
                    break
            else:
                return
            step = self._steps.pop(names, None)  # None: another thread has it
            try:
                if step:
                    step()
            except Exception as error:
                # The import of upstream, which has gone well, goes on;
                # register_all_modules() raises the error.
                warnings.warn(
                    f'pvd_mm could not register what it has for {names[0]}: '
                    f'{type(error).__name__}: {error}'
                )


def watch_imports() -> None:
    """Register with all that is loaded, and from now on with what will be.

    A second call does nothing.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        finder = _Finder()
        sys.meta_path.insert(0, finder)
        with finder:
            pass


def _why_not(framework: str) -> str | None:
    """Why an installed framework cannot be used."""
    try:
        importlib.import_module(f'{framework}.models')
    except Exception as error:  # its own version checks raise AssertionError
        return (
            f'{framework} is installed but cannot be imported, so what '
            f'pvd_mm has for it is not registered: '
            f'{type(error).__name__}: {error}'
        )
    return None


def register_all_modules() -> list[str]:
    """Import mmengine and the frameworks that are installed, and register all that
    pvd_mm has for them.

    ``import pvd_mm`` does the same for what is imported by others; this is for
    programs that build a model from a config and import nothing else.

    Returns:
        list[str]: ``pvd_mm.semantic``, ``pvd_mm.instance`` or both.

    Raises:
        ModuleNotFoundError: If mmengine is not installed.
        ImportError: If mmseg, mmdet or both are installed, and none can be imported;
            of one alone that cannot, it warns.
    """
    if importlib.util.find_spec('mmengine') is None:
        raise ModuleNotFoundError(f'mmengine is not installed. {INSTALL_HINT}')
    steps = [_after_mmengine, _after_torch, _after_runner, _after_hooks]
    steps += [_after_optim, _after_model]
    packages, reasons = [], []
    for package, framework in FRAMEWORKS.items():
        if importlib.util.find_spec(framework) is None:
            continue
        reason = _why_not(framework)
        if reason:
            reasons.append(reason)
        else:
            packages.append(package)
            steps.append(_after_mmseg if framework == 'mmseg' else _after_mmdet)
    if reasons and not packages:
        raise ImportError(reasons[0])
    for reason in reasons:
        warnings.warn(reason, stacklevel=2)
    for step in steps:
        step()
    return packages

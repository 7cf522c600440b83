# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Where the shipped configs are, and finding one by its name."""

import difflib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]


def mim_root() -> Path:
    """Folder that holds ``configs``, ``tools`` and ``model-index.yml``.

    ``pvd_mm/.mim`` of an installed package, or the checkout itself when the
    code runs uninstalled.

    Raises:
        FileNotFoundError: If neither has a ``configs`` folder.
    """
    for root in (_PACKAGE / '.mim', _PACKAGE.parent):
        if (root / 'configs').is_dir():
            return root
    raise FileNotFoundError(
        f'The configs of pvd_mm are neither in {_PACKAGE / ".mim"} nor in '
        f'{_PACKAGE.parent}; the installation is incomplete. Reinstall '
        'pvd_mm.'
    )


def shipped_configs(primitives: bool = False) -> list[str]:
    """List the shipped configs.

    Args:
        primitives (bool): Also list the files below ``_base_``.
            Defaults to False.

    Returns:
        list[str]: Paths relative to the ``configs`` folder, sorted.
    """
    root = mim_root() / 'configs'
    paths = (p.relative_to(root).as_posix() for p in root.rglob('*.py'))
    return sorted(p for p in paths if primitives or not p.startswith('_base_/'))


def _near(name: str, candidates: list[str], number: int = 5) -> list[str]:
    """Candidates that resemble ``name``, compared by path and by stem."""
    whole = difflib.get_close_matches(name, candidates, number, 0.5)
    by_stem = {Path(c).stem: c for c in candidates}
    stems = difflib.get_close_matches(
        Path(name).name.removesuffix('.py'), list(by_stem), number, 0.5
    )
    merged = dict.fromkeys([by_stem[s] for s in stems] + whole)
    return list(merged)[:number]


def find_shipped(name: str, primitives: bool = False) -> Path | None:
    """Find a shipped config by relative path or bare name.

    Args:
        name (str): ``'pvd/pvd_r18-….py'``, ``'pvd_r18-….py'``, each also
            without ``.py`` and with a leading ``configs/``.
        primitives (bool): Also look below ``_base_``. Defaults to False.

    Returns:
        Path | None: The file; None if there is none or more than one.
    """
    wanted = name.replace('\\', '/').removesuffix('.py') + '.py'
    wanted = wanted.removeprefix('./').removeprefix('configs/')
    listed = shipped_configs(primitives)
    hits = [c for c in listed if c == wanted]
    if not hits and '/' not in wanted:
        hits = [c for c in listed if Path(c).name == wanted]
    return mim_root() / 'configs' / hits[0] if len(hits) == 1 else None


def missing_config_message(name: str, primitives: bool = False) -> str:
    """Say that a config is missing and which shipped ones resemble it."""
    near = _near(name, shipped_configs(primitives))
    if near:
        hint = 'Did you mean one of:\n  ' + '\n  '.join(near)
    else:
        hint = 'The shipped configs are:\n  ' + '\n  '.join(shipped_configs())
    return f'Config not found: {name}\n{hint}'

# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A grid of trainings: run what is missing, tabulate and plot the results.

A grid is a YAML file: tables of named trials, each a config, overrides and
seeds. ``tools/train.py`` runs every training in a folder of its own, so that an
interrupted one goes on where it stopped, and ``tools/test.py`` tests its last
checkpoint; the results are lines of ``results.jsonl``.
"""

from .grid import Grid, GridError, Trial, load_grid
from .results import RESULTS, read_results, results_of, summarize
from .run import command, run
from .tables import markdown, plot, table, update_blocks

__all__ = [
    'RESULTS',
    'Grid',
    'GridError',
    'Trial',
    'command',
    'load_grid',
    'markdown',
    'plot',
    'read_results',
    'results_of',
    'run',
    'summarize',
    'table',
    'update_blocks',
]

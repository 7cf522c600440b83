# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The memory that a pass takes."""

import gc
from collections.abc import Callable

import torch

MIB = 2**20


def peak_memory(action: Callable[[], object], device: str) -> float:
    """Memory in MiB that torch holds at most while ``action`` runs, beyond
    what it held before: activations, gradients and workspaces of torch, not
    what libraries take beside it.

    On a CPU from the allocations that torch's profiler records.

    Args:
        action (Callable): What is called.
        device (str): Where it runs: 'cpu', 'cuda', 'cuda:0', ...
    """
    gc.collect()
    if device.startswith('cuda'):
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        action()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak / MIB

# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The machine that figures were measured on, in words."""

import os
import platform
from pathlib import Path

import torch


def describe_processor(device: str) -> str:
    """The GPU, or the processor and its number of CPUs.

    Args:
        device (str): 'cpu', 'cuda', 'cuda:0', ...
    """
    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                name = line.split(':', 1)[1].strip()
                break
    except OSError:
        pass
    return f'{name} ({platform.machine()}, {os.cpu_count()} CPUs)'


def describe_machine(device: str) -> str:
    """As :func:`describe_processor`; of a processor also how many threads
    torch uses."""
    name = describe_processor(device)
    if device.startswith('cuda'):
        return name
    threads = torch.get_num_threads()
    return f'{name}, {threads} thread{"s" if threads > 1 else ""}'

# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Code in fresh interpreters, for little: forked from one process that has imported
torch and others, but nothing of mm* or of pvd_mm."""

import json

from .commands import python

_SERVER = """
import json, os, sys, tempfile, traceback
import cv2, matplotlib.pyplot, numpy, scipy.optimize, torch.distributed.fsdp
results = []
for code in json.loads(sys.argv[1]):
    with tempfile.TemporaryFile('w+') as file:
        child = os.fork()
        if not child:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            status = 1
            try:
                exec(code, {'__name__': '__main__'})
                status = 0
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        status = os.waitpid(child, 0)[1]
        file.seek(0)
        results.append((status, file.read()))
print('\\n' + json.dumps(results))
"""


def fresh_pythons(*codes: str) -> list[str]:
    """What each code prints; one that fails fails the test."""
    out = python('-W', 'ignore', '-c', _SERVER, json.dumps(codes), timeout=900)
    results = json.loads(out.splitlines()[-1])
    for code, (status, text) in zip(codes, results):
        assert status == 0, f'{code}\n{text}'
    return [text for _, text in results]

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from spikebench.speed.memory import PeakMemory

MIB = 2**20


@pytest.fixture
def memory() -> PeakMemory:
    found = PeakMemory(torch.device("cpu"))
    if not found.resettable:
        pytest.skip("this system cannot reset the peak of the resident memory")
    return found


def test_the_peak_is_seen_after_it_is_gone_and_forgotten_on_reset(memory: PeakMemory):
    memory.give_back()
    before = memory.now()
    memory.reset()
    assert before is not None
    assert memory.peak() < before + 32 * MIB
    held = torch.ones(128 * MIB // 4)
    del held
    assert before + 120 * MIB < memory.peak() < before + 160 * MIB
    memory.give_back()  # of a process that keeps it for reuse, as other tests have it
    memory.reset()
    assert memory.peak() < before + 32 * MIB
    assert "VmHWM" in memory.about


def test_without_a_reset_it_says_since_when(memory: PeakMemory):
    memory.resettable = False
    since_the_beginning = memory.peak()
    memory.reset()
    assert memory.peak() >= since_the_beginning > 64 * MIB
    assert "since it began" in memory.about


def test_what_the_process_kept_for_reuse_is_given_back(memory: PeakMemory):
    code = """
import torch
from spikebench.speed.memory import PeakMemory
memory = PeakMemory(torch.device("cpu"))
held = torch.ones(2**24)
end = torch.ones(2**18)
del held
kept = memory.now()
memory.give_back()
print(kept - memory.now() > 60 * 2**20)
"""
    never = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, **never}, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_it_is_what_tensors_took():
    memory = PeakMemory(torch.device("cuda"))
    memory.reset()
    before = memory.now()
    held = torch.ones(64 * MIB // 4, device="cuda")
    del held
    assert before is not None
    assert memory.peak() - before == 64 * MIB

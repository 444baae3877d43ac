"""PyTorch's product of two 4096 x 4096 matrices of 32-bit numbers (no TF32), over and over; prints how many were done when."""

import argparse
import json
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--seconds", type=float, required=True)
parser.add_argument("--size", type=int, default=4096)
options = parser.parse_args()

torch.backends.cuda.matmul.allow_tf32 = False
a = torch.randn(options.size, options.size, device="cuda")
b = torch.randn(options.size, options.size, device="cuda")
out = torch.empty_like(a)
for _ in range(3):
    torch.mm(a, b, out=out)
torch.cuda.synchronize()

# Two rounds of a few products under way, a third waited for: the device never runs dry.
rounds, samples, launched = [], [], 0
start = time.monotonic()
while time.monotonic() - start < options.seconds:
    for _ in range(2):
        torch.mm(a, b, out=out)
        launched += 1
    event = torch.cuda.Event(blocking=True)
    event.record()
    rounds.append((event, launched))
    if len(rounds) == 3:
        event, count = rounds.pop(0)
        event.synchronize()
        samples.append((time.monotonic_ns() // 1000, count))
torch.cuda.synchronize()
samples.append((time.monotonic_ns() // 1000, launched))
samples = samples[:: max(1, len(samples) // 2000)] + samples[-1:]
print(json.dumps({"fact": "done", "value": {"launches": launched, "seconds": time.monotonic() - start, "samples": samples}}))

"""Steps a second of a small PyTorch model: `train`, `infer`, or `graph` (inference replayed from a CUDA graph)."""

import argparse
import json
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("task", choices=["train", "infer", "graph"])
parser.add_argument("--seconds", type=float, default=4.0)
options = parser.parse_args()

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.ReLU(),
    torch.nn.Conv2d(64, 128, 3, stride=2, padding=1), torch.nn.ReLU(),
    torch.nn.Conv2d(128, 128, 3, stride=2, padding=1), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(128 * 64, 1000),
).cuda()
batch = torch.randn(64, 3, 128, 128, device="cuda")
target = torch.randint(0, 1000, (64,), device="cuda")
optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)


def train():
    optimiser.zero_grad(set_to_none=True)
    torch.nn.functional.cross_entropy(model(batch), target).backward()
    optimiser.step()


@torch.no_grad()
def infer():
    model(batch)


step = train if options.task == "train" else infer
side = torch.cuda.Stream()
with torch.cuda.stream(side):
    for _ in range(10):
        step()
torch.cuda.synchronize()
if options.task == "graph":
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        infer()
    step = graph.replay
    for _ in range(10):
        step()
    torch.cuda.synchronize()

count, start = 0, time.monotonic()
while time.monotonic() - start < options.seconds:
    for _ in range(10):
        step()
    torch.cuda.synchronize()
    count += 10
print(json.dumps({"fact": "per_second", "value": count / (time.monotonic() - start)}))

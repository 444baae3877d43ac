"""One case of an unmodified framework (the first argument). Prints one JSON object: `result`, to be compared with the same case's
elsewhere, and `seconds`; or `skipped` when the framework is not installed.

Results are rounded: what is compared is whether the work was done, not the last bit of a sum whose order may change.
"""

import json
import os
import sys
import time

CASE = sys.argv[1] if len(sys.argv) > 1 else ""
ALLOCATORS = {
    "expandable_segments": "expandable_segments:True",
    "out_of_memory_expandable": "expandable_segments:True",
    "async_allocator": "backend:cudaMallocAsync",
}
if CASE in ALLOCATORS:
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = os.environ["PYTORCH_ALLOC_CONF"] = ALLOCATORS[CASE]
if CASE == "no_caching":
    os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
# JAX would take most of the device at once; here it takes what it needs.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def model_and_batch():
    import torch

    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    model = torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 10)).cuda()
    return torch, model, torch.randn(256, 512).cuda()


def train():
    torch, model, batch = model_and_batch()
    target = torch.arange(256, device="cuda") % 10
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(50):
        optimiser.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(batch), target)
        loss.backward()
        optimiser.step()
    return round(loss.item(), 2)


def infer():
    torch, model, batch = model_and_batch()
    with torch.no_grad():
        for _ in range(50):
            out = model(batch)
    return round(out.double().sum().item(), 1)


def out_of_memory():
    """Takes more than a quota of 4 GiB leaves, then works on with what it has."""
    import torch

    held = []
    try:
        for _ in range(40):
            held.append(torch.zeros(256 << 20, dtype=torch.uint8, device="cuda"))
    except torch.cuda.OutOfMemoryError:
        outcome = "OutOfMemoryError"
    except Exception as error:  # whatever else a quota may look like is what this case is after
        return f"{type(error).__name__}: {error}"
    else:
        return "no error"
    taken = len(held)
    held.clear()
    torch.cuda.empty_cache()
    again = torch.ones(1024, device="cuda").sum().item()
    usable = taken > 0 and again == 1024
    return f"{outcome}, and usable afterwards" if usable else f"{outcome}, after {taken} blocks; then {again}"


def cuda_graph():
    torch, model, batch = model_and_batch()
    side = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(side):
        for _ in range(3):
            model(batch)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        out = model(batch)
    for _ in range(200):
        graph.replay()
    torch.cuda.synchronize()
    return round(out.double().sum().item(), 1)


def streams():
    import torch

    total = torch.zeros(4, device="cuda")
    torch.cuda.synchronize()
    lanes = [torch.cuda.Stream() for _ in range(4)]
    for index, lane in enumerate(lanes):
        with torch.cuda.stream(lane):
            for _ in range(100):
                total[index] += index
    for lane in lanes:
        lane.synchronize()
    return total.tolist()


def compile():
    torch, model, batch = model_and_batch()
    compiled = torch.compile(model)
    with torch.no_grad():
        for _ in range(5):
            out = compiled(batch)
    return round(out.double().sum().item(), 1)


def triton():
    import torch
    import triton

    from triton_add import add

    x = torch.arange(10_000, device="cuda", dtype=torch.float32)
    out = torch.empty_like(x)
    add[(triton.cdiv(10_000, 1024),)](x, x, out, 10_000, block=1024)
    return out.sum().item()


def cupy():
    import cupy

    a = cupy.arange(1 << 20, dtype=cupy.float64).reshape(1024, 1024)
    kernel = cupy.RawKernel(r'extern "C" __global__ void twice(double *x) { x[blockIdx.x * 256 + threadIdx.x] *= 2; }', "twice")
    kernel((4096,), (256,), (a,))
    return float((a @ cupy.eye(1024)).sum())


def jax():
    import jax
    import jax.numpy as jnp

    if jax.default_backend() not in ("gpu", "cuda"):
        raise ImportError(f"JAX has no GPU here, only {jax.default_backend()}")
    step = jax.jit(lambda x: (x @ x.T).sum())
    return round(float(step(jnp.ones((1024, 1024)))), 1)


CASES = {
    "train": train, "infer": infer, "out_of_memory": out_of_memory, "out_of_memory_expandable": out_of_memory,
    "expandable_segments": train, "async_allocator": train, "no_caching": infer, "cuda_graph": cuda_graph,
    "streams": streams, "compile": compile, "triton": triton, "cupy": cupy, "jax": jax,
}

if __name__ == "__main__":
    if CASE not in CASES:
        sys.exit(f"usage: frameworks.py {' | '.join(CASES)}")
    start = time.monotonic()
    try:
        found = {"result": CASES[CASE]()}
    except ImportError as error:
        found = {"skipped": str(error)}
    print(json.dumps({**found, "case": CASE, "seconds": time.monotonic() - start}))

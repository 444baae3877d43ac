"""Numba on the GPU: a jitted vector addition, a reduction and a matrix product in shared memory, checked by NumPy.

    numba_kernels.py            results only
    numba_kernels.py --exact    also: takes device arrays to the last byte of the quota, and is refused exactly beyond

Prints what it saw, one line each, without addresses; exit status 1 when a result is wrong.
"""

import gc
import sys
import warnings

import numpy as np
from numba import cuda, float32

UNIT = 2 << 20
TILE = 16
BLOCK = 256


@cuda.jit
def add(a, b, c):
    i = cuda.grid(1)
    if i < c.size:
        c[i] = a[i] + b[i]


@cuda.jit
def total(values, out):
    partial = cuda.shared.array(BLOCK, float32)
    t = cuda.threadIdx.x
    i = cuda.grid(1)
    partial[t] = values[i] if i < values.size else 0.0
    cuda.syncthreads()
    half = BLOCK // 2
    while half > 0:
        if t < half:
            partial[t] += partial[t + half]
        cuda.syncthreads()
        half //= 2
    if t == 0:
        cuda.atomic.add(out, 0, partial[0])


@cuda.jit
def multiply(a, b, c):
    left = cuda.shared.array((TILE, TILE), float32)
    right = cuda.shared.array((TILE, TILE), float32)
    x, y = cuda.grid(2)
    tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
    sum_ = float32(0.0)
    for step in range((a.shape[1] + TILE - 1) // TILE):
        left[ty, tx] = 0
        right[ty, tx] = 0
        if y < a.shape[0] and tx + step * TILE < a.shape[1]:
            left[ty, tx] = a[y, tx + step * TILE]
        if x < b.shape[1] and ty + step * TILE < b.shape[0]:
            right[ty, tx] = b[ty + step * TILE, x]
        cuda.syncthreads()
        for k in range(TILE):
            sum_ += left[ty, k] * right[k, tx]
        cuda.syncthreads()
    if y < c.shape[0] and x < c.shape[1]:
        c[y, x] = sum_


def check(what, right):
    print(f"{what}: {'right' if right else 'WRONG'}")
    if not right:
        sys.exit(1)


def results():
    count = 5000
    a = np.arange(count, dtype=np.float32)
    b = np.full(count, 3, dtype=np.float32)
    c = cuda.device_array(count, dtype=np.float32)
    add[(count + BLOCK - 1) // BLOCK, BLOCK](cuda.to_device(a), cuda.to_device(b), c)
    check("vector addition", np.array_equal(c.copy_to_host(), a + b))

    # Whole numbers below 2^24: sums of single precision are exact in any order.
    out = cuda.to_device(np.zeros(1, dtype=np.float32))
    total[(count + BLOCK - 1) // BLOCK, BLOCK](cuda.to_device(b), out)
    check("reduction", out.copy_to_host()[0] == 3 * count)

    rng = np.random.default_rng(7)
    left = rng.integers(-9, 10, (50, 70)).astype(np.float32)
    right = rng.integers(-9, 10, (70, 33)).astype(np.float32)
    product = cuda.device_array((50, 33), dtype=np.float32)
    multiply[(3, 4), (TILE, TILE)](cuda.to_device(left), cuda.to_device(right), product)
    check("matrix product in shared memory", np.array_equal(product.copy_to_host(), left @ right))

    stream = cuda.stream()
    start, end = cuda.event(), cuda.event()
    with cuda.pinned(a):
        start.record(stream)
        there = cuda.to_device(a, stream=stream)
        add[(count + BLOCK - 1) // BLOCK, BLOCK, stream](there, there, c)
        end.record(stream)
        back = c.copy_to_host(stream=stream)
        stream.synchronize()
    check("streams, events and pinned memory", np.array_equal(back, a + a) and start.elapsed_time(end) >= 0)


def settled():
    """Free and total bytes once Numba has given back what it keeps for later."""
    gc.collect()
    context = cuda.current_context()
    context.memory_manager.deallocations.clear()
    context.deallocations.clear()
    return tuple(context.get_memory_info())


def exact():
    free, size = settled()
    units = free // UNIT
    held = [cuda.device_array(UNIT, dtype=np.uint8) for _ in range(units)]
    check("every unit that is free is given", settled()[0] == free % UNIT)
    try:
        cuda.device_array(UNIT, dtype=np.uint8)
        check("the unit too many is refused", False)
    except Exception as error:
        check("the unit too many is refused as out of memory", "OUT_OF_MEMORY" in str(error).upper())
    del held[-4:]
    settled()
    results()
    held.clear()
    check("all of it comes back", settled() == (free, size))


if __name__ == "__main__":
    # About small grids, and about linking by the driver: both meant here.
    warnings.simplefilter("ignore")
    results()
    if "--exact" in sys.argv[1:]:
        exact()

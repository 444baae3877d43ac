"""Runs the sample kernels as nvcc compiles them here, by the tool kit of NVIDIA's own wheels.

    compiled.py KERNELS SCRATCH

Prints what it saw; exit status 77 with a reason when this machine has no C++ compiler, which nvcc needs.
"""

import ctypes
import pathlib
import shutil
import struct
import subprocess
import sys
import sysconfig

from cuda.bindings import driver

from bindings import check, require, start


def nvcc(source, out):
    """PTX by nvcc; machine code by ptxas, which so checks it."""
    tools = pathlib.Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin"
    subprocess.run([tools / "nvcc", "-ptx", "-arch=compute_80", "-o", out, source.name], check=True, cwd=source.parent)
    subprocess.run([tools / "ptxas", "-arch=sm_90", "-o", out.with_suffix(".cubin"), out], check=True)
    return out.read_bytes() + b"\0"


def main():
    if shutil.which("g++") is None and shutil.which("c++") is None:
        print("nvcc needs a C++ compiler")
        sys.exit(77)
    kernels, scratch = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    start()
    module = check(driver.cuModuleLoadData(nvcc(kernels / "matmul.cu", scratch / "matmul.ptx")))
    kernel = check(driver.cuModuleGetFunction(module, b"matmul"))
    n = 40
    a = [float((3 * i) % 7 - 3) for i in range(n * n)]
    b = [float((5 * i) % 9 - 4) for i in range(n * n)]
    size = 4 * n * n
    held = [check(driver.cuMemAlloc(size)) for _ in range(3)]
    for address, values in zip(held, (a, b)):
        host = ctypes.create_string_buffer(struct.pack(f"{n * n}f", *values), size)
        check(driver.cuMemcpyHtoD(address, ctypes.addressof(host), size))
    kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)
    arguments = (*(int(address) for address in held), n)
    tiles = (n + 15) // 16
    check(driver.cuLaunchKernel(kernel, tiles, tiles, 1, 16, 16, 1, 0, 0, (arguments, kinds), 0))
    out = ctypes.create_string_buffer(size)
    check(driver.cuMemcpyDtoH(ctypes.addressof(out), held[2], size))
    result = struct.unpack(f"{n * n}f", out.raw)
    right = [sum(a[r * n + k] * b[k * n + c] for k in range(n)) for r in range(n) for c in range(n)]
    require("matmul by nvcc", list(result) == right)
    for address in held:
        check(driver.cuMemFree(address))


if __name__ == "__main__":
    main()

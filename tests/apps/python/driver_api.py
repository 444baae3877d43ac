"""NVIDIA's own Python bindings on the driver API: allocate, copy, launch, check.

Exit status 0: results are right. 77: this Python has no cuda-bindings.
"""

import ctypes
import pathlib
import struct
import sys

try:
    from cuda.bindings import driver
except ImportError as error:
    print(f"SKIPPED: cuda-bindings is not installed: {error}")
    sys.exit(77)


def check(answer):
    """The values of a call, or the end of the program with the driver's own error."""
    status, *values = answer
    if status != driver.CUresult.CUDA_SUCCESS:
        sys.exit(f"{status!r}")
    return values[0] if len(values) == 1 else values


def main():
    count = 5000
    check(driver.cuInit(0))
    device = check(driver.cuDeviceGet(0))
    context = check(driver.cuDevicePrimaryCtxRetain(device))
    check(driver.cuCtxSetCurrent(context))

    ptx = pathlib.Path(__file__).parent.parent / "kernels" / "ptx" / "saxpy.ptx"
    module = check(driver.cuModuleLoadData(ptx.read_bytes() + b"\0"))
    kernel = check(driver.cuModuleGetFunction(module, b"saxpy"))

    x = [float(i % 17) for i in range(count)]
    y = [float(i % 5) for i in range(count)]
    size = 4 * count
    x_host, y_host = (ctypes.create_string_buffer(struct.pack(f"{count}f", *v), size) for v in (x, y))
    x_device, y_device = check(driver.cuMemAlloc(size)), check(driver.cuMemAlloc(size))
    check(driver.cuMemcpyHtoD(x_device, ctypes.addressof(x_host), size))
    check(driver.cuMemcpyHtoD(y_device, ctypes.addressof(y_host), size))

    arguments = (count, 3.0, int(x_device), int(y_device))
    kinds = (ctypes.c_uint, ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p)
    check(driver.cuLaunchKernel(kernel, (count + 255) // 256, 1, 1, 256, 1, 1, 0, 0, (arguments, kinds), 0))
    check(driver.cuCtxSynchronize())
    check(driver.cuMemcpyDtoH(ctypes.addressof(y_host), y_device, size))

    result = struct.unpack(f"{count}f", y_host.raw)
    wrong = sum(result[i] != 3.0 * x[i] + y[i] for i in range(count))
    free, total = check(driver.cuMemGetInfo())
    check(driver.cuMemFree(x_device))
    check(driver.cuMemFree(y_device))
    check(driver.cuDevicePrimaryCtxRelease(device))
    print({"app": "driver_api", "elements": count, "wrong": wrong, "free": free, "total": total})
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()

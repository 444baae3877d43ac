"""NVIDIA's own Python bindings: the driver API and NVRTC, as cuda-bindings gives them.

    bindings.py KERNELS            what a program sees, one line each, without addresses
    bindings.py KERNELS --exact    also: every family to the last byte of the quota, and exactly refused beyond

KERNELS is the folder of the sample kernels' sources; they are compiled here, by NVRTC.
"""

import ctypes
import pathlib
import struct
import sys

from cuda.bindings import driver, nvrtc

UNIT = 2 << 20
OK = driver.CUresult.CUDA_SUCCESS
OUT_OF_MEMORY = driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY


class Refused(Exception):
    """A call's own error."""


def check(answer):
    """The values of a call."""
    status, *values = answer
    if int(status) != 0:
        raise Refused(status)
    return values[0] if len(values) == 1 else values


def require(what, right):
    print(f"{what}: {'right' if right else 'WRONG'}")
    if not right:
        sys.exit(1)


def compiled(source):
    """PTX of a kernel file, by NVRTC."""
    text = source.read_bytes()
    program = check(nvrtc.nvrtcCreateProgram(text, source.name.encode(), 0, [], []))
    options = [b"--gpu-architecture=compute_75"]
    check(nvrtc.nvrtcCompileProgram(program, len(options), options))
    ptx = b" " * check(nvrtc.nvrtcGetPTXSize(program))
    check(nvrtc.nvrtcGetPTX(program, ptx))
    return ptx


def start():
    check(driver.cuInit(0))
    device = check(driver.cuDeviceGet(0))
    check(driver.cuCtxSetCurrent(check(driver.cuDevicePrimaryCtxRetain(device))))
    return device


def memory():
    return check(driver.cuMemGetInfo())


def computes(ptx):
    """saxpy on a stream of its own, in memory taken and given back in stream order, timed by events."""
    count = 5000
    size = 4 * count
    x = [float(i % 17) for i in range(count)]
    y = [float(i % 5) for i in range(count)]
    x_host, y_host = (ctypes.create_string_buffer(struct.pack(f"{count}f", *v), size) for v in (x, y))
    module = check(driver.cuModuleLoadData(ptx))
    kernel = check(driver.cuModuleGetFunction(module, b"saxpy"))
    stream = check(driver.cuStreamCreate(1))
    begin, end = check(driver.cuEventCreate(0)), check(driver.cuEventCreate(0))
    check(driver.cuEventRecord(begin, stream))
    x_device, y_device = (check(driver.cuMemAllocAsync(size, stream)) for _ in range(2))
    check(driver.cuMemcpyHtoDAsync(x_device, ctypes.addressof(x_host), size, stream))
    check(driver.cuMemcpyHtoDAsync(y_device, ctypes.addressof(y_host), size, stream))
    arguments = (count, 3.0, int(x_device), int(y_device))
    kinds = (ctypes.c_uint, ctypes.c_float, ctypes.c_void_p, ctypes.c_void_p)
    blocks = (count + 255) // 256
    check(driver.cuLaunchKernel(kernel, blocks, 1, 1, 256, 1, 1, 0, stream, (arguments, kinds), 0))
    check(driver.cuMemcpyDtoHAsync(ctypes.addressof(y_host), y_device, size, stream))
    check(driver.cuMemFreeAsync(x_device, stream))
    check(driver.cuMemFreeAsync(y_device, stream))
    check(driver.cuEventRecord(end, stream))
    check(driver.cuEventSynchronize(end))
    result = struct.unpack(f"{count}f", y_host.raw)
    require("saxpy", all(result[i] == 3.0 * x[i] + y[i] for i in range(count)))
    require("time between events", check(driver.cuEventElapsedTime(begin, end)) >= 0)
    check(driver.cuStreamDestroy(stream))
    check(driver.cuModuleUnload(module))


def by_address():
    """The driver's functions by `cuGetProcAddress`, as libraries find them."""
    for name, version, flags in (
        (b"cuMemAlloc", 2000, 0), (b"cuMemAlloc", 3020, 0), (b"cuLaunchKernel", 7000, 0), (b"cuLaunchKernel", 7000, 2),
        (b"cuMemAllocAsync", 11020, 1), (b"cuMemAllocAsync", 11020, 2), (b"cuGetProcAddress", 12000, 0),
        (b"cuMemAllocAsync", 11010, 0), (b"cuNoSuchThing", 12000, 0), (b"cuMemAlloc_v2", 12000, 0),
    ):
        status, address, found = driver.cuGetProcAddress(name, version, flags)
        print(f"{name.decode()} {version} {flags}: {int(status)} {bool(address)} {int(found)}")


def take_plain():
    address = check(driver.cuMemAlloc(UNIT))
    return lambda: check(driver.cuMemFree(address))


def take_managed():
    address = check(driver.cuMemAllocManaged(UNIT, 1))
    return lambda: check(driver.cuMemFree(address))


def take_physical():
    prop = driver.CUmemAllocationProp()
    prop.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    handle = check(driver.cuMemCreate(UNIT, prop, 0))
    return lambda: check(driver.cuMemRelease(handle))


def take_async():
    address = check(driver.cuMemAllocAsync(UNIT, 0))

    def give():
        check(driver.cuMemFreeAsync(address, 0))
        check(driver.cuStreamSynchronize(0))

    return give


FAMILIES = (take_plain, take_managed, take_physical, take_async)
# What a device must say of itself for a family to be there.
NEEDS = {
    take_managed: driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY,
    take_physical: driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
    take_async: driver.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED,
}


def there(take):
    """Whether the device has a family."""
    return take not in NEEDS or check(driver.cuDeviceGetAttribute(NEEDS[take], 0)) != 0


def takes():
    for take in FAMILIES:
        if not there(take):
            print(f"{take.__name__}: not on this device")
            continue
        free, _ = memory()
        give = take()
        taken = free - memory()[0]
        give()
        print(f"{take.__name__}: takes {taken}, leaves {free - memory()[0]}")


def exact():
    free, size = memory()
    for take in filter(there, FAMILIES):
        held = []
        while True:
            try:
                held.append(take())
            except Refused as refused:
                require("refused as out of memory", refused.args[0] == OUT_OF_MEMORY)
                break
        require(f"{take.__name__} to the last unit", len(held) == free // UNIT and memory()[0] == free % UNIT)
        for give in held:
            give()
        require("all of it comes back", memory() == [free, size])


def main():
    kernels = pathlib.Path(sys.argv[1])
    device = start()
    ptx = compiled(kernels / "saxpy.cu")
    print(f"total is the device's: {memory()[1] == check(driver.cuDeviceTotalMem(device))}")
    computes(ptx)
    by_address()
    takes()
    if "--exact" in sys.argv[2:]:
        exact()


if __name__ == "__main__":
    main()

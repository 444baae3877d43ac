"""Calls NVIDIA's driver library where there is no device, and prints what it answers, one line each.

The output must be the same natively and under the hook. Functions are named by the symbol that an address belongs to, so
the library that gave it is left out; with --owner it is named too.
"""

import ctypes
import os
import sys

OWNER = "--owner" in sys.argv[1:]
cuda = ctypes.CDLL("libcuda.so.1")
this = ctypes.CDLL(None)


class DlInfo(ctypes.Structure):
    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def owner(address):
    """The symbol an address belongs to."""
    info = DlInfo()
    if not address or not this.dladdr(ctypes.c_void_p(address), ctypes.byref(info)):
        return None
    symbol = info.symbol.decode() if info.symbol else "?"
    return f"{os.path.basename(info.file.decode())}:{symbol}" if OWNER else symbol


def exported(path):
    """The driver API's names in a library's own symbol table, read without tools."""
    with open(path, "rb") as file:
        data = file.read()

    def number(offset, size):
        return int.from_bytes(data[offset : offset + size], "little")

    table, entry, count = number(0x28, 8), number(0x3A, 2), number(0x3C, 2)
    sections = [table + i * entry for i in range(count)]
    names = set()
    for section in sections:
        if number(section + 4, 4) != 11:  # SHT_DYNSYM
            continue
        strings = number(sections[number(section + 40, 4)] + 24, 8)
        start, size = number(section + 24, 8), number(section + 32, 8)
        for symbol in range(start, start + size, 24):
            if number(symbol + 6, 2) == 0:  # undefined
                continue
            end = data.index(b"\0", strings + number(symbol, 4))
            name = data[strings + number(symbol, 4) : end].decode()
            if name.startswith("cu") and name[2:3].isupper():
                names.add(name)
    return sorted(names)


def base(name):
    """The name that cuGetProcAddress knows an exported name by."""
    for suffix in ("_ptsz", "_ptds"):
        name = name.removesuffix(suffix)
    head, _, version = name.rpartition("_v")
    return head if head and version.isdigit() else name


def library_file():
    """Where the driver library was loaded from."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if "/libcuda.so" in line:
                return line.split()[-1]
    sys.exit("libcuda.so.1 is loaded and not mapped")


def calls():
    """Calls that ask, take, give back, launch and wait, before and after cuInit."""
    value, pointer = ctypes.c_int(-7), ctypes.c_void_p()
    one, two = ctypes.c_size_t(), ctypes.c_size_t()
    size, null = ctypes.c_size_t(4096), ctypes.c_void_p()
    for when in ("before", "after"):
        if when == "after":
            print("cuInit", cuda.cuInit(0))
        print(when, "cuDriverGetVersion", cuda.cuDriverGetVersion(ctypes.byref(value)), value.value)
        print(when, "cuDeviceGetCount", cuda.cuDeviceGetCount(ctypes.byref(value)), value.value)
        print(when, "cuDeviceGet", cuda.cuDeviceGet(ctypes.byref(value), 0))
        print(when, "cuDeviceTotalMem", cuda.cuDeviceTotalMem_v2(ctypes.byref(one), 0))
        print(when, "cuMemGetInfo", cuda.cuMemGetInfo_v2(ctypes.byref(one), ctypes.byref(two)), one.value, two.value)
        print(when, "cuMemAlloc", cuda.cuMemAlloc_v2(ctypes.byref(pointer), size))
        print(when, "cuMemAllocManaged", cuda.cuMemAllocManaged(ctypes.byref(pointer), size, 1))
        print(when, "cuMemAllocAsync", cuda.cuMemAllocAsync(ctypes.byref(pointer), size, null))
        print(when, "cuMemCreate", cuda.cuMemCreate(null, size, null, ctypes.c_ulonglong(0)))
        print(when, "cuMemFree", cuda.cuMemFree_v2(ctypes.c_uint64(1 << 30)))
        print(when, "cuMemFreeAsync", cuda.cuMemFreeAsync(ctypes.c_uint64(1 << 30), null))
        print(when, "cuCtxSynchronize", cuda.cuCtxSynchronize())
        print(when, "cuStreamSynchronize", cuda.cuStreamSynchronize(null))
        # The driver looks at a launch's arguments first; which complaint it makes of two is its own affair.
        print(when, "cuLaunchKernel", cuda.cuLaunchKernel(*[null] * 11) in (1, 3, 400))
        print(when, "cuLaunchKernelEx", cuda.cuLaunchKernelEx(null, null, null, null) in (1, 3, 400))
        print(when, "cuGraphLaunch", cuda.cuGraphLaunch(null, null))
        print(when, "cuDevicePrimaryCtxRetain", cuda.cuDevicePrimaryCtxRetain(ctypes.byref(pointer), 0))
        print(when, "cuCtxGetCurrent", cuda.cuCtxGetCurrent(ctypes.byref(pointer)), pointer.value)


def look_ups():
    """Every name, at every version and kind of stream, by cuGetProcAddress and by dlsym."""
    names = exported(library_file())
    this.dlsym.restype = ctypes.c_void_p
    for name in names:
        print("dlsym", name, owner(this.dlsym(ctypes.c_void_p(cuda._handle), name.encode())))
    for name in sorted({base(name) for name in names}) + ["", "cuNeverWas", "malloc"]:
        for version in (0, 2000, 3020, 4000, 7000, 10000, 11020, 12000, 12030, 13000, 99999):
            for flags in (0, 1, 2):
                found, status = ctypes.c_void_p(0xDEAD), ctypes.c_int(-1)
                flags64 = ctypes.c_ulonglong(flags)
                code = cuda.cuGetProcAddress_v2(name.encode(), ctypes.byref(found), version, flags64, ctypes.byref(status))
                print("v2", name, version, flags, code, status.value, owner(found.value))
                found = ctypes.c_void_p(0xDEAD)
                code = cuda.cuGetProcAddress_v2(name.encode(), ctypes.byref(found), version, flags64, None)
                print("v2 null", name, version, flags, code, owner(found.value))
                found = ctypes.c_void_p(0)
                code = cuda.cuGetProcAddress(name.encode(), ctypes.byref(found), version, flags64)
                print("v1", name, version, flags, code, owner(found.value))


def tables():
    """NVIDIA's private tables pass unseen."""
    cuda.cuGetExportTable.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for uuid in ("6bd5fb6c5bf4e74a8987d93912fd9df9", "d4082055bde6704b8d34ba123c66e1f2", "00" * 16):
        table = ctypes.c_void_p()
        code = cuda.cuGetExportTable(ctypes.byref(table), bytes.fromhex(uuid))
        print("table", uuid, code, table.value is not None)


if __name__ == "__main__":
    calls()
    look_ups()
    tables()

"""Calls a CUDA runtime library (the first argument) and prints what it answers. The same natively and under the hook."""

import ctypes
import sys

runtime = ctypes.CDLL(sys.argv[1])
runtime.cudaGetErrorName.restype = ctypes.c_char_p
value, pointer = ctypes.c_int(-1), ctypes.c_void_p()


def show(what, code, *more):
    print(what, code, runtime.cudaGetErrorName(code).decode(), *more)


show("cudaGetDeviceCount", runtime.cudaGetDeviceCount(ctypes.byref(value)), value.value)
show("cudaDriverGetVersion", runtime.cudaDriverGetVersion(ctypes.byref(value)), value.value)
show("cudaMalloc", runtime.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(4096)))
show("cudaMallocAsync", runtime.cudaMallocAsync(ctypes.byref(pointer), ctypes.c_size_t(4096), None))
show("cudaFree", runtime.cudaFree(None))
show("cudaDeviceSynchronize", runtime.cudaDeviceSynchronize())
show("cudaDeviceReset", runtime.cudaDeviceReset())
show("cudaGetLastError", runtime.cudaGetLastError())

"""NVIDIA's Python bindings where there is no device. Exit status 77: this Python has none."""

import sys

try:
    from cuda.bindings import driver
except ImportError as error:
    print(f"SKIPPED: {error}")
    sys.exit(77)

print(driver.cuInit(0))
print(driver.cuDeviceGetCount())
print(driver.cuDriverGetVersion())
print(driver.cuMemAlloc(4096))
print(driver.cuGetProcAddress(b"cuMemAlloc", 12000, 0)[0])

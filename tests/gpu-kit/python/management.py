"""NVML where there is no driver in the kernel: what it answers, one line a call."""

import ctypes

nvml = ctypes.CDLL("libnvidia-ml.so.1")
handle, count = ctypes.c_void_p(), ctypes.c_uint(77)
memory = (ctypes.c_ulonglong * 3)()
text = ctypes.create_string_buffer(96)

print("nvmlInit_v2", nvml.nvmlInit_v2())
print("nvmlDeviceGetCount_v2", nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)), count.value)
print("nvmlDeviceGetHandleByIndex_v2", nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)))
print("nvmlDeviceGetMemoryInfo", nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)), *memory)
print("nvmlSystemGetDriverVersion", nvml.nvmlSystemGetDriverVersion(text, 96), text.value)
print("nvmlShutdown", nvml.nvmlShutdown())

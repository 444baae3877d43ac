//! NVML's functions, as far as a borrowed device has them. The same library is found as `libnvidia-ml.so.1`: a program
//! that uses both has one session.
#![expect(unsafe_code, reason = "exports C functions")]

use core::ffi::{c_char, c_int, c_uint};

use headgate_abi::nvml::{
    NvmlDevice, NvmlMemory, NvmlMemoryV2, NvmlPciInfo, NvmlReturn, NvmlUtilization, Symbol,
};
use headgate_remote::client::nvml;

macro_rules! exports {
    ($($name:ident ($($arg:ident: $ty:ty),*);)*) => {
        $(
            #[unsafe(no_mangle)]
            #[allow(non_snake_case, reason = "the C name")]
            extern "C" fn $name($($arg: $ty),*) -> NvmlReturn {
                nvml::call(|| nvml::$name($($arg),*))
            }
        )*

        // Only what stands in the one table.
        const _: &[Symbol] = &[$(Symbol::$name),*];
    };
}
exports! {
    nvmlInit();
    nvmlInit_v2();
    nvmlInitWithFlags(flags: c_uint);
    nvmlShutdown();
    nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint);
    nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint);
    nvmlSystemGetCudaDriverVersion(version: *mut c_int);
    nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int);
    nvmlDeviceGetCount(count: *mut c_uint);
    nvmlDeviceGetCount_v2(count: *mut c_uint);
    nvmlDeviceGetHandleByIndex(index: c_uint, device: *mut NvmlDevice);
    nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut NvmlDevice);
    nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut NvmlDevice);
    nvmlDeviceGetHandleByPciBusId(bus_id: *const c_char, device: *mut NvmlDevice);
    nvmlDeviceGetHandleByPciBusId_v2(bus_id: *const c_char, device: *mut NvmlDevice);
    nvmlDeviceGetIndex(device: NvmlDevice, index: *mut c_uint);
    nvmlDeviceGetName(device: NvmlDevice, name: *mut c_char, length: c_uint);
    nvmlDeviceGetUUID(device: NvmlDevice, uuid: *mut c_char, length: c_uint);
    nvmlDeviceGetPciInfo_v3(device: NvmlDevice, info: *mut NvmlPciInfo);
    nvmlDeviceGetMemoryInfo(device: NvmlDevice, memory: *mut NvmlMemory);
    nvmlDeviceGetMemoryInfo_v2(device: NvmlDevice, memory: *mut NvmlMemoryV2);
    nvmlDeviceGetUtilizationRates(device: NvmlDevice, utilization: *mut NvmlUtilization);
    nvmlDeviceGetCudaComputeCapability(device: NvmlDevice, major: *mut c_int, minor: *mut c_int);
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(result: NvmlReturn) -> *const c_char {
    nvml::error_text(result).as_ptr()
}

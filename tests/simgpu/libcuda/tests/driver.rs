//! The driver API of the simulated GPU, as a program sees it: a real server, the built `libcuda.so.1`, cudarc's bindings.
#![expect(unsafe_code, reason = "the driver API is C")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::ffi::{CStr, c_void};
use std::time::Duration;

use cudarc::driver::sys::{self, CUresult};
use support::*;

const MIB: usize = 1 << 20;

#[test]
fn nothing_works_before_init() {
    in_child("nothing_works_before_init", "{}", || {
        let (mut count, mut version, mut device) = (0, 0, 0);
        let refused = Err(CUresult::CUDA_ERROR_NOT_INITIALIZED);
        assert_eq!(cu!(cuDeviceGetCount(&mut count)), refused);
        assert_eq!(cu!(cuDeviceGet(&mut device, 0)), refused);
        assert_eq!(allocate(1), refused.map(|()| 0));
        cu!(cuDriverGetVersion(&mut version)).unwrap();
        assert_eq!(version, 13_000);
        assert_eq!(cu!(cuInit(1)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        cu!(cuInit(0)).unwrap();
        cu!(cuInit(0)).unwrap();
        cu!(cuDeviceGetCount(&mut count)).unwrap();
        assert_eq!(count, 1);
        assert_eq!(cu!(cuDeviceGet(&mut device, 1)), Err(CUresult::CUDA_ERROR_INVALID_DEVICE));
        assert_eq!(allocate(1), Err(CUresult::CUDA_ERROR_INVALID_CONTEXT));
    });
}

#[test]
fn bytes_come_back_as_they_went() {
    in_child("bytes_come_back_as_they_went", "{}", || {
        context();
        let address = allocate(MIB).unwrap();
        let values: Vec<u32> = (0..1_000).collect();
        upload(address, &values).unwrap();
        assert_eq!(download::<u32>(address, 1_000).unwrap(), values);
        // Device to device, and one element of 2 bytes over it.
        cu!(cuMemcpyDtoD_v2(address + 4_096, address, 4_000)).unwrap();
        cu!(cuMemsetD16_v2(address + 4_096, 0xabcd, 1)).unwrap();
        assert_eq!(download::<u32>(address + 4_096, 2).unwrap(), [0xabcd, 1]);
        // Pageable memory may be changed as soon as the asynchronous copy has returned; pinned memory may not, and is
        // read in stream order.
        let mut pageable = [1_u32];
        cu!(cuMemcpyHtoDAsync_v2(address, pageable.as_ptr().cast(), 4, NULL)).unwrap();
        pageable[0] = 2;
        assert_eq!(download::<u32>(address, 1).unwrap(), [1]);
        assert_eq!(pageable, [2]);
        // Copies and fills beyond the end, misaligned or of nothing.
        assert_eq!(upload(address + MIB as u64 - 4, &[0_u64]), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        assert_eq!(cu!(cuMemsetD32_v2(address + 2, 0, 1)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        assert_eq!(cu!(cuMemcpyDtoD_v2(8, address, 0)), Ok(()));
        assert_eq!(cu!(cuMemcpyDtoD_v2(8, address, 4)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        cu!(cuMemFree_v2(address)).unwrap();
        assert_eq!(cu!(cuMemFree_v2(address)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        assert_eq!(download::<u32>(address, 1), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    });
}

#[test]
fn rows_are_copied_with_their_pitches() {
    in_child("rows_are_copied_with_their_pitches", "{}", || {
        context();
        let (mut address, mut pitch) = (0, 0);
        cu!(cuMemAllocPitch_v2(&mut address, &mut pitch, 100, 3, 4)).unwrap();
        assert_eq!(pitch, 512);
        let host: Vec<u8> = (0..60).collect();
        // Rows 1 and 2 of a host image of 20 x 3, into column 8 of device rows 0 and 1.
        let copy = sys::CUDA_MEMCPY2D_st {
            srcXInBytes: 0,
            srcY: 1,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            srcHost: host.as_ptr().cast(),
            srcDevice: 0,
            srcArray: std::ptr::null_mut(),
            srcPitch: 20,
            dstXInBytes: 8,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: address,
            dstArray: std::ptr::null_mut(),
            dstPitch: pitch,
            WidthInBytes: 20,
            Height: 2,
        };
        cu!(cuMemcpy2D_v2(&copy)).unwrap();
        assert_eq!(download::<u8>(address + 8, 20).unwrap(), (20..40).collect::<Vec<u8>>());
        assert_eq!(download::<u8>(address + 512 + 8, 20).unwrap(), (40..60).collect::<Vec<u8>>());
        let narrow = sys::CUDA_MEMCPY2D_st { srcPitch: 10, ..copy };
        assert_eq!(cu!(cuMemcpy2D_v2(&narrow)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    });
}

#[test]
fn memory_is_accounted_to_the_byte() {
    in_child("memory_is_accounted_to_the_byte", r#"{"devices": [{"memory_bytes": 10485760}]}"#, || {
        context();
        let free = || {
            let (mut free, mut total) = (0, 0);
            cu!(cuMemGetInfo_v2(&mut free, &mut total)).unwrap();
            assert_eq!(total, 10 * MIB);
            free
        };
        assert_eq!(free(), 10 * MIB);
        let one = allocate(1).unwrap();
        assert_eq!((one % 512, free()), (0, 10 * MIB - 512), "512 bytes are the least");
        assert_eq!(allocate(10 * MIB), Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        let rest = allocate(10 * MIB - 512).unwrap();
        assert_eq!(free(), 0);
        assert_eq!(allocate(1), Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(allocate(0), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        cu!(cuMemFree_v2(one)).unwrap();
        cu!(cuMemFree_v2(rest)).unwrap();
        // In stream order.
        let mut address = 0;
        cu!(cuMemAllocAsync(&mut address, MIB, NULL)).unwrap();
        assert_eq!(free(), 8 * MIB, "a pool takes 2 MiB at a time");
        cu!(cuMemFreeAsync(address, NULL)).unwrap();
        cu!(cuCtxSynchronize()).unwrap();
        assert_eq!(free(), 10 * MIB);
        let plain = allocate(MIB).unwrap();
        assert_eq!(cu!(cuMemFreeAsync(plain, NULL)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    });
}

#[test]
fn kernels_compute() {
    in_child("kernels_compute", "{}", || {
        context();
        let saxpy = function(module(SAXPY).unwrap(), c"saxpy");
        let x: Vec<f32> = (0_u16..1_000).map(f32::from).collect();
        let (x_device, y_device) = (allocate(4_000).unwrap(), allocate(4_000).unwrap());
        upload(x_device, &x).unwrap();
        upload(y_device, &x).unwrap();
        let (n, a) = (1_000_u32, 2.0_f32);
        launch(saxpy, 32, NULL, [param(&n), param(&a), param(&x_device), param(&y_device)]).unwrap();
        let y = download::<f32>(y_device, 1_000).unwrap();
        assert!(y.iter().zip(&x).all(|(y, x)| y.to_bits() == (3.0 * x).to_bits()));
        // The same parameters as one buffer.
        let mut buffer = Vec::new();
        buffer.extend_from_slice(&n.to_le_bytes());
        buffer.extend_from_slice(&a.to_le_bytes());
        buffer.extend_from_slice(&x_device.to_le_bytes());
        buffer.extend_from_slice(&y_device.to_le_bytes());
        let bytes = buffer.len();
        let mut extra: [*mut c_void; 5] = [
            std::ptr::without_provenance_mut(1),
            buffer.as_mut_ptr().cast(),
            std::ptr::without_provenance_mut(2),
            param(&bytes),
            std::ptr::null_mut(),
        ];
        let none = std::ptr::null_mut();
        cu!(cuLaunchKernel(saxpy, 32, 1, 1, 32, 1, 1, 0, NULL, none, extra.as_mut_ptr())).unwrap();
        assert_eq!(download::<f32>(y_device, 3).unwrap(), [0.0, 5.0, 10.0]);
        // Bad shapes.
        let mut params = [param(&n), param(&a), param(&x_device), param(&y_device)];
        let mut refused = |grid: u32, block: u32, shared: u32| {
            cu!(cuLaunchKernel(saxpy, grid, 1, 1, block, 1, 1, shared, NULL, params.as_mut_ptr(), none))
        };
        for (grid, block, shared) in [(0, 32, 0), (1, 0, 0), (1, 1_025, 0), (1, 32, 49_153)] {
            assert_eq!(refused(grid, block, shared), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        }
        let without = cu!(cuLaunchKernel(saxpy, 1, 1, 1, 32, 1, 1, 0, NULL, none, none));
        assert_eq!(without, Err(CUresult::CUDA_ERROR_INVALID_VALUE), "it has parameters");
    });
}

#[test]
fn module_variables_have_their_values() {
    in_child("module_variables_have_their_values", "{}", || {
        context();
        let module = module(CONSTANT).unwrap();
        let mut missing = 0;
        assert_eq!(
            cu!(cuModuleGetGlobal_v2(&mut missing, std::ptr::null_mut(), module, c"no_such_name".as_ptr())),
            Err(CUresult::CUDA_ERROR_NOT_FOUND)
        );
        let mut none = std::ptr::null_mut();
        assert_eq!(
            cu!(cuModuleGetFunction(&mut none, module, c"no_such_name".as_ptr())),
            Err(CUresult::CUDA_ERROR_NOT_FOUND)
        );
        cu!(cuModuleUnload(module)).unwrap();
        assert_eq!(cu!(cuModuleUnload(module)), Err(CUresult::CUDA_ERROR_INVALID_HANDLE));
    });
}

#[test]
fn images_that_cannot_run_are_refused() {
    in_child("images_that_cannot_run_are_refused", "{}", || {
        context();
        let (mut options, mut log) = (
            [
                sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
                sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
            ],
            [0_u8; 256],
        );
        let mut values = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut::<c_void>(log.len())];
        let bad = c".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() { frobnicate.u32 %r1; ret; }\n";
        let mut module = std::ptr::null_mut();
        let status = cu!(cuModuleLoadDataEx(
            &mut module,
            bad.as_ptr().cast(),
            2,
            options.as_mut_ptr(),
            values.as_mut_ptr()
        ));
        assert_eq!(status, Err(CUresult::CUDA_ERROR_INVALID_PTX));
        let log = CStr::from_bytes_until_nul(&log).unwrap().to_str().unwrap();
        assert!(log.contains("line 4"), "{log}");
        let elf =
            *b"\x7fELF\x02\x01\x01\0and what follows is never looked at, as the device runs no machine code";
        let status = cu!(cuModuleLoadData(&mut module, elf.as_ptr().cast()));
        assert_eq!(status, Err(CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU));
    });
}

/// A fat binary as nvcc makes it without compression: a wrapper, a header, an ELF entry and a PTX entry.
fn fatbin(ptx: &str) -> Vec<u8> {
    let entry = |kind: u16, payload: &[u8]| {
        let mut bytes = vec![0; 64];
        bytes[..2].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&64_u32.to_le_bytes());
        let length = payload.len().next_multiple_of(8);
        bytes[8..16].copy_from_slice(&(length as u64).to_le_bytes());
        bytes[28..32].copy_from_slice(&75_u32.to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes.resize(64 + length, 0);
        bytes
    };
    let entries = [entry(2, b"\x7fELF and machine code"), entry(1, format!("{ptx}\0").as_bytes())].concat();
    let mut bytes = 0xba55_ed50_u32.to_le_bytes().to_vec();
    bytes.extend_from_slice(&1_u16.to_le_bytes());
    bytes.extend_from_slice(&16_u16.to_le_bytes());
    bytes.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&entries);
    bytes
}

#[test]
fn libraries_hold_kernels_for_every_context() {
    in_child("libraries_hold_kernels_for_every_context", "{}", || {
        context();
        let image = fatbin(SPIN);
        let (mut library, mut kernel) = (std::ptr::null_mut(), std::ptr::null_mut());
        cu!(cuLibraryLoadData(
            &mut library,
            image.as_ptr().cast(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0
        ))
        .unwrap();
        assert_eq!(
            cu!(cuLibraryGetKernel(&mut kernel, library, c"spi".as_ptr())),
            Err(CUresult::CUDA_ERROR_NOT_FOUND)
        );
        cu!(cuLibraryGetKernel(&mut kernel, library, c"spin".as_ptr())).unwrap();
        let counter = allocate(8).unwrap();
        cu!(cuMemsetD8_v2(counter, 0, 8)).unwrap();
        // A kernel may be passed where a function is expected.
        launch(kernel.cast(), 1, NULL, [param(&counter)]).unwrap();
        assert_eq!(download::<u64>(counter, 1).unwrap(), [1]);
        cu!(cuLibraryUnload(library)).unwrap();
        assert_eq!(
            launch(kernel.cast(), 1, NULL, [param(&counter)]),
            Err(CUresult::CUDA_ERROR_INVALID_HANDLE)
        );
    });
}

#[test]
fn execution_errors_stick_to_their_context() {
    in_child("execution_errors_stick_to_their_context", "{}", || {
        let primary = context();
        let mut other = std::ptr::null_mut();
        cu!(cuCtxCreate_v2(&mut other, 0, 0)).unwrap();
        let kept = allocate(4).unwrap();
        cu!(cuCtxSetCurrent(primary)).unwrap();
        let write_at = function(module(FAULTS).unwrap(), c"write_at");
        let (address, value) = (allocate(512).unwrap(), 7_i32);
        let write = |index: i64| launch(write_at, 1, NULL, [param(&address), param(&index), param(&value)]);
        write(3).unwrap();
        assert_eq!(download::<i32>(address + 12, 1).unwrap(), [7]);
        write(1 << 30).unwrap();
        let stuck = Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
        // Whether the device has come so far is up to it.
        assert!([Ok(()), stuck].contains(&write(4)));
        assert_eq!(cu!(cuCtxSynchronize()), stuck);
        assert_eq!(write(5), stuck);
        assert_eq!(allocate(4), stuck.map(|()| 0));
        assert_eq!(download::<i32>(address, 1), stuck.map(|()| Vec::new()));
        assert_eq!(cu!(cuStreamQuery(NULL)), stuck);
        // The other context goes on, and a reset makes a new primary context.
        cu!(cuCtxSetCurrent(other)).unwrap();
        upload(kept, &[1_u32]).unwrap();
        cu!(cuDevicePrimaryCtxReset_v2(0)).unwrap();
        cu!(cuDevicePrimaryCtxRetain(&mut other, 0)).unwrap();
        assert_eq!(other, primary, "the handle stays the same");
        cu!(cuCtxSetCurrent(primary)).unwrap();
        assert!(allocate(4).is_ok());
    });
}

#[test]
fn faults_have_the_codes_of_the_real_driver() {
    let faults = [
        ("read_unaligned", CUresult::CUDA_ERROR_MISALIGNED_ADDRESS),
        ("trap_in_thread", CUresult::CUDA_ERROR_LAUNCH_FAILED),
        ("wait_for_flag", CUresult::CUDA_ERROR_LAUNCH_TIMEOUT),
    ];
    in_child("faults_have_the_codes_of_the_real_driver", r#"{"instructions_max": 1000000}"#, || {
        for (name, code) in faults {
            context();
            let function = function(module(FAULTS).unwrap(), &std::ffi::CString::new(name).unwrap());
            let (address, one) = (allocate(64).unwrap(), 1_u32);
            cu!(cuMemsetD8_v2(address, 0, 64)).unwrap();
            let launched = match name {
                "read_unaligned" => {
                    launch(function, 1, NULL, [param(&address), param(&one), param(&address)])
                }
                "trap_in_thread" => launch(function, 1, NULL, [param(&one)]),
                _ => launch(function, 1, NULL, [param(&address)]),
            };
            launched.unwrap();
            assert_eq!(cu!(cuCtxSynchronize()), Err(code), "{name}");
            cu!(cuDevicePrimaryCtxReset_v2(0)).unwrap();
        }
    });
}

#[test]
fn events_measure_device_time_exactly() {
    let config = r#"{"kernels": {"spin": {"base_ns": 7250000}}}"#;
    in_child("events_measure_device_time_exactly", config, || {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let counter = allocate(8).unwrap();
        let stream = stream(1);
        let (start, end, never) = (event(0), event(0), event(0));
        cu!(cuEventRecord(start, stream)).unwrap();
        for _ in 0..4 {
            launch(spin, 1, stream, [param(&counter)]).unwrap();
        }
        cu!(cuEventRecord(end, stream)).unwrap();
        let mut milliseconds = 0.0;
        assert_eq!(cu!(cuStreamQuery(stream)), Err(CUresult::CUDA_ERROR_NOT_READY));
        assert_eq!(cu!(cuEventQuery(end)), Err(CUresult::CUDA_ERROR_NOT_READY));
        assert_eq!(
            cu!(cuEventElapsedTime(&mut milliseconds, start, end)),
            Err(CUresult::CUDA_ERROR_NOT_READY)
        );
        cu!(cuEventSynchronize(end)).unwrap();
        cu!(cuStreamQuery(stream)).unwrap();
        cu!(cuEventElapsedTime(&mut milliseconds, start, end)).unwrap();
        // From the record to the end of the last kernel: four kernels, and the time until the first was submitted.
        assert!((29.0..30.0).contains(&milliseconds), "{milliseconds}");
        assert_eq!(
            cu!(cuEventElapsedTime(&mut milliseconds, start, never)),
            Err(CUresult::CUDA_ERROR_INVALID_HANDLE)
        );
        cu!(cuEventQuery(never)).unwrap();
        cu!(cuEventDestroy_v2(end)).unwrap();
        assert_eq!(cu!(cuEventQuery(end)), Err(CUresult::CUDA_ERROR_INVALID_HANDLE));
    });
}

#[test]
fn streams_wait_for_events_of_others() {
    let config = r#"{"kernels": {"write_at": {"base_ns": 20000000}}}"#;
    in_child("streams_wait_for_events_of_others", config, || {
        context();
        let write_at = function(module(FAULTS).unwrap(), c"write_at");
        let (address, index, value) = (allocate(8).unwrap(), 0_i64, 7_i32);
        cu!(cuMemsetD8_v2(address, 0, 8)).unwrap();
        cu!(cuCtxSynchronize()).unwrap();
        let (one, two) = (stream(1), stream(1));
        let done = event(2);
        launch(write_at, 1, one, [param(&address), param(&index), param(&value)]).unwrap();
        cu!(cuEventRecord(done, one)).unwrap();
        cu!(cuStreamWaitEvent(two, done, 0)).unwrap();
        cu!(cuMemcpyDtoDAsync_v2(address + 4, address, 4, two)).unwrap();
        // Destroying streams and events does not take their work away.
        cu!(cuStreamDestroy_v2(one)).unwrap();
        cu!(cuEventDestroy_v2(done)).unwrap();
        cu!(cuStreamSynchronize(two)).unwrap();
        assert_eq!(download::<i32>(address, 2).unwrap(), [7, 7]);
        assert_eq!(cu!(cuStreamSynchronize(one)), Err(CUresult::CUDA_ERROR_INVALID_HANDLE));
    });
}

#[test]
fn memory_operations_gate_a_stream() {
    in_child("memory_operations_gate_a_stream", "{}", || {
        context();
        let stream = stream(1);
        let mut unpinned = 0_u64;
        assert_eq!(
            cu!(cuStreamWaitValue32_v2(stream, std::ptr::from_mut(&mut unpinned).addr() as u64, 1, 0)),
            Err(CUresult::CUDA_ERROR_INVALID_VALUE)
        );
        let mut page = std::ptr::null_mut();
        cu!(cuMemHostAlloc(&mut page, 4_096, 0)).unwrap();
        let words: *mut u32 = page.cast();
        let (gate, count) = (words.addr() as u64, words.addr() as u64 + 64);
        let op = |operation, address: u64, value: u32, flags| {
            let word =
                sys::CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st__bindgen_ty_1 { value };
            // Writes have the same fields as waits.
            sys::CUstreamBatchMemOpParams {
                waitValue: sys::CUstreamBatchMemOpParams_union_CUstreamMemOpWaitValueParams_st {
                    operation,
                    address,
                    __bindgen_anon_1: word,
                    flags,
                    alias: 0,
                },
            }
        };
        use sys::CUstreamBatchMemOpType_enum::{
            CU_STREAM_MEM_OP_WAIT_VALUE_32, CU_STREAM_MEM_OP_WRITE_VALUE_32,
        };
        let mut ops = [
            op(CU_STREAM_MEM_OP_WRITE_VALUE_32, count, 41, 0),
            op(CU_STREAM_MEM_OP_WAIT_VALUE_32, gate, 3, 0),
        ];
        cu!(cuStreamBatchMemOp_v2(stream, 2, ops.as_mut_ptr(), 0)).unwrap();
        cu!(cuStreamWriteValue32_v2(stream, count, 42, 0)).unwrap();
        // SAFETY: the words lie in the page just allocated; the device writes them meanwhile.
        let read = |word: usize| unsafe { words.wrapping_add(word).read_volatile() };
        // SAFETY: as above.
        let write = |value| unsafe { words.write_volatile(value) };
        eventually("the write before the wait", || read(16) == 41);
        assert_eq!(cu!(cuStreamQuery(stream)), Err(CUresult::CUDA_ERROR_NOT_READY));
        write(2);
        pause(Duration::from_millis(5));
        assert_eq!((cu!(cuStreamQuery(stream)), read(16)), (Err(CUresult::CUDA_ERROR_NOT_READY), 41));
        write(3);
        cu!(cuStreamSynchronize(stream)).unwrap();
        assert_eq!(read(16), 42);
        // A bad operation refuses the whole batch.
        let mut ops = [
            op(CU_STREAM_MEM_OP_WRITE_VALUE_32, count, 43, 0),
            op(CU_STREAM_MEM_OP_WRITE_VALUE_32, gate + 2, 0, 0),
        ];
        assert_eq!(
            cu!(cuStreamBatchMemOp_v2(stream, 2, ops.as_mut_ptr(), 0)),
            Err(CUresult::CUDA_ERROR_INVALID_VALUE)
        );
        cu!(cuStreamSynchronize(stream)).unwrap();
        assert_eq!(read(16), 42);
        cu!(cuMemFreeHost(page)).unwrap();
    });
}

#[test]
fn registered_memory_is_pinned_memory() {
    in_child("registered_memory_is_pinned_memory", "{}", || {
        context();
        let mut words = vec![0_u32; 2_048];
        let address: *mut c_void = words.as_mut_ptr().cast();
        cu!(cuMemHostRegister_v2(address, 8_192, 0)).unwrap();
        assert_eq!(
            cu!(cuMemHostRegister_v2(address.wrapping_add(4_096), 16, 0)),
            Err(CUresult::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED)
        );
        let mut device = 0;
        cu!(cuMemHostGetDevicePointer_v2(&mut device, address, 0)).unwrap();
        // A kernel writes host memory through it.
        let write_at = function(module(FAULTS).unwrap(), c"write_at");
        let (index, value) = (5_i64, 77_i32);
        launch(write_at, 1, NULL, [param(&device), param(&index), param(&value)]).unwrap();
        cu!(cuCtxSynchronize()).unwrap();
        // SAFETY: the vector is alive; the device wrote it.
        assert_eq!(unsafe { address.cast::<u32>().wrapping_add(5).read_volatile() }, 77);
        cu!(cuMemHostUnregister(address)).unwrap();
        assert_eq!(cu!(cuMemHostUnregister(address)), Err(CUresult::CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED));
        drop(words);
    });
}

extern "C" fn add_one(count: *mut c_void) {
    // SAFETY: the test passes a u32 that lives until it has synchronised.
    unsafe { *count.cast::<u32>() += 1 };
}

#[test]
fn host_functions_run_in_stream_order() {
    let config = r#"{"kernels": {"spin": {"base_ns": 5000000}}}"#;
    in_child("host_functions_run_in_stream_order", config, || {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let counter = allocate(8).unwrap();
        let stream = stream(1);
        let mut count = 0_u32;
        let data: *mut c_void = std::ptr::from_mut(&mut count).cast();
        // SAFETY: the count outlives the stream's work.
        let seen = || unsafe { data.cast::<u32>().read_volatile() };
        for _ in 0..3 {
            launch(spin, 1, stream, [param(&counter)]).unwrap();
            cu!(cuLaunchHostFunc(stream, Some(add_one), data)).unwrap();
        }
        assert_eq!(seen(), 0);
        cu!(cuStreamSynchronize(stream)).unwrap();
        assert_eq!(seen(), 3);
    });
}

#[test]
fn a_full_stream_blocks_until_there_is_room() {
    let config = r#"{"kernels": {"spin": {"base_ns": 10000}}}"#;
    in_child("a_full_stream_blocks_until_there_is_room", config, || {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let counter = allocate(8).unwrap();
        cu!(cuMemsetD8_v2(counter, 0, 8)).unwrap();
        for _ in 0..5_000 {
            launch(spin, 1, NULL, [param(&counter)]).unwrap();
        }
        assert_eq!(download::<u64>(counter, 1).unwrap(), [5_000]);
    });
}

#[test]
fn streams_of_a_context_that_died_with_work_pending_are_not_mixed_up() {
    let config = r#"{"kernels": {"spin": {"hangs": true}}}"#;
    in_child("streams_of_a_context_that_died_with_work_pending_are_not_mixed_up", config, || {
        let primary = context();
        let mut doomed = std::ptr::null_mut();
        cu!(cuCtxCreate_v2(&mut doomed, 0, 0)).unwrap();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let counter = allocate(8).unwrap();
        let lost = stream(1);
        launch(spin, 1, lost, [param(&counter)]).unwrap();
        cu!(cuStreamDestroy_v2(lost)).unwrap();
        launch(spin, 1, stream(1), [param(&counter)]).unwrap();
        cu!(cuCtxDestroy_v2(doomed)).unwrap();
        cu!(cuCtxSetCurrent(primary)).unwrap();
        // New streams take over the numbers of the dead; each must still be one of its own.
        let words = allocate(40).unwrap();
        let streams: Vec<_> = (0..10).map(|_| stream(1)).collect();
        for (stream, at) in streams.iter().zip(0_u32..) {
            cu!(cuMemsetD32Async(words + 4 * u64::from(at), at, 1, *stream)).unwrap();
            cu!(cuStreamSynchronize(*stream)).unwrap();
        }
        assert_eq!(download::<u32>(words, 10).unwrap(), (0..10).collect::<Vec<u32>>());
    });
}

#[test]
fn contexts_stack_and_count() {
    in_child("contexts_stack_and_count", "{}", || {
        let primary = context();
        let current = || {
            let mut context = std::ptr::null_mut();
            cu!(cuCtxGetCurrent(&mut context)).unwrap();
            context
        };
        let state = || {
            let (mut flags, mut active) = (0, 0);
            cu!(cuDevicePrimaryCtxGetState(0, &mut flags, &mut active)).unwrap();
            active
        };
        let (mut made, mut popped) = (std::ptr::null_mut(), std::ptr::null_mut());
        cu!(cuCtxCreate_v2(&mut made, 0, 0)).unwrap();
        assert_eq!(current(), made, "a new context is current");
        cu!(cuCtxPopCurrent_v2(&mut popped)).unwrap();
        assert_eq!((popped, current()), (made, primary));
        cu!(cuCtxPushCurrent_v2(made)).unwrap();
        cu!(cuCtxDestroy_v2(made)).unwrap();
        assert_eq!(current(), primary, "destroying the current context pops it");
        assert_eq!(cu!(cuCtxDestroy_v2(made)), Err(CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED));
        assert_eq!(cu!(cuCtxDestroy_v2(primary)), Err(CUresult::CUDA_ERROR_INVALID_CONTEXT));
        let garbage = std::ptr::without_provenance_mut(0x1234);
        assert_eq!(cu!(cuCtxSetCurrent(garbage)), Err(CUresult::CUDA_ERROR_INVALID_CONTEXT));
        // Two retains, two releases.
        cu!(cuDevicePrimaryCtxRetain(&mut made, 0)).unwrap();
        cu!(cuDevicePrimaryCtxRelease_v2(0)).unwrap();
        assert_eq!(state(), 1);
        cu!(cuDevicePrimaryCtxRelease_v2(0)).unwrap();
        assert_eq!(state(), 0);
        assert_eq!(cu!(cuDevicePrimaryCtxRelease_v2(0)), Err(CUresult::CUDA_ERROR_INVALID_CONTEXT));
        assert_eq!(allocate(1), Err(CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED));
        // Another thread has a stack of its own.
        std::thread::spawn(|| assert_eq!(allocate(1), Err(CUresult::CUDA_ERROR_INVALID_CONTEXT)))
            .join()
            .unwrap();
    });
}

#[test]
fn entry_points_are_found_by_version_and_mode() {
    in_child("entry_points_are_found_by_version_and_mode", "{}", || {
        let look_up = |name: &CStr, version, flags| {
            let mut address = std::ptr::null_mut();
            let mut status = sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SUCCESS;
            cu!(cuGetProcAddress_v2(name.as_ptr(), &mut address, version, flags, &mut status))
                .map(|()| (address, status as u32))
        };
        let (base, found) = look_up(c"cuLaunchKernel", 12_000, 0).unwrap();
        let (per_thread, _) = look_up(c"cuLaunchKernel", 12_000, 2).unwrap();
        assert!(found == 0 && !base.is_null() && !per_thread.is_null() && base != per_thread);
        let (old, _) = look_up(c"cuCtxSynchronize", 12_000, 0).unwrap();
        let (new, _) = look_up(c"cuCtxSynchronize", 13_000, 0).unwrap();
        assert_ne!(old, new);
        assert_eq!(look_up(c"", 0, 0), Ok((std::ptr::null_mut(), 1)));
        assert_eq!(look_up(c"cuNoSuchCall", 12_000, 0), Ok((std::ptr::null_mut(), 1)));
        assert_eq!(look_up(c"cuLaunchKernelEx", 11_000, 0), Ok((std::ptr::null_mut(), 2)));
        assert_eq!(look_up(c"cuInit", 14_000, 0), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        let mut table = std::ptr::dangling();
        let id = sys::CUuuid { bytes: [7; 16] };
        assert_eq!(cu!(cuGetExportTable(&mut table, &id)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        assert!(table.is_null());
    });
}

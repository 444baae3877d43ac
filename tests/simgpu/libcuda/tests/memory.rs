//! Memory beyond plain allocations, as the CUDA documentation describes it: pools, virtual memory management, arrays,
//! managed memory, and what processes share.
#![expect(unsafe_code, reason = "the driver API is C")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;
#[path = "support/table.rs"]
mod table;

use std::ffi::c_void;
use std::io::{BufRead, BufReader, Write};

use headgate_abi::cuda::types::*;
use support::{Device, body, context, download, in_child, upload};
use table::*;

const MIB: usize = 1 << 20;
const INVALID: Result<(), CUresult> = Err(CUresult::ERROR_INVALID_VALUE);
const NO_STREAM: CUstream = CUstream::NULL;

fn used() -> usize {
    let (mut free, mut total) = (0, 0);
    cuMemGetInfo_v2(&raw mut free, &raw mut total).unwrap();
    total - free
}

fn plain(bytes: usize) -> u64 {
    let mut address = 0;
    cuMemAlloc_v2(&raw mut address, bytes).unwrap();
    address
}

fn on_device(kind: u32, handle_types: u32) -> CUmemAllocationProp {
    CUmemAllocationProp {
        kind: CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: handle_types,
        location: CUmemLocation { kind, id: 0 },
        win32HandleMetaData: std::ptr::null_mut(),
        compressionType: 0,
        gpuDirectRDMACapable: 0,
        usage: 0,
        reserved: [0; 4],
    }
}

fn create(bytes: usize, prop: &CUmemAllocationProp) -> Result<u64, CUresult> {
    let mut handle = 0;
    cuMemCreate(&raw mut handle, bytes, prop, 0).map(|()| handle)
}

fn reserve(bytes: usize) -> u64 {
    let mut address = 0;
    cuMemAddressReserve(&raw mut address, bytes, 0, 0, 0).unwrap();
    address
}

fn allow(address: u64, bytes: usize, kind: u32, flags: u32) -> Result<(), CUresult> {
    let access = CUmemAccessDesc { location: CUmemLocation { kind, id: 0 }, flags };
    cuMemSetAccess(address, bytes, &raw const access, 1)
}

#[test]
fn physical_memory_lives_until_its_last_handle_and_mapping() {
    in_child("physical_memory_lives_until_its_last_handle_and_mapping", "{}", || {
        context();
        let device = on_device(CU_MEM_LOCATION_TYPE_DEVICE, 0);
        let mut granule = 0;
        cuMemGetAllocationGranularity(&raw mut granule, &raw const device, 0).unwrap();
        assert_eq!(granule, 2 * MIB);
        assert_eq!(create(MIB, &device), Err(CUresult::ERROR_INVALID_VALUE), "not a multiple");
        let (one, two) = (create(2 * MIB, &device).unwrap(), create(2 * MIB, &device).unwrap());
        assert_eq!(used(), 4 * MIB);
        let address = reserve(8 * MIB);
        assert_eq!(used(), 4 * MIB, "addresses cost nothing");
        cuMemMap(address, 2 * MIB, 0, one, 0).unwrap();
        cuMemMap(address + 2 * MIB as u64, 2 * MIB, 0, two, 0).unwrap();
        assert_eq!(cuMemMap(address, 2 * MIB, 0, two, 0), INVALID, "something is there");
        assert_eq!(cuMemMap(0x1000, 2 * MIB, 0, two, 0), INVALID, "not reserved");
        allow(address, 4 * MIB, CU_MEM_LOCATION_TYPE_DEVICE, 3).unwrap();
        // A copy goes across both blocks.
        let values: Vec<u32> = (0..1_024).collect();
        upload(address + 2 * MIB as u64 - 2_048, &values).unwrap();
        assert_eq!(download::<u32>(address + 2 * MIB as u64, 1).unwrap(), [512]);
        cuMemRelease(one).unwrap();
        cuMemRelease(two).unwrap();
        assert_eq!(cuMemRelease(one), INVALID);
        assert_eq!(used(), 4 * MIB, "mapped memory stays");
        assert_eq!(download::<u32>(address + 2 * MIB as u64, 1).unwrap(), [512]);
        let mut again = 0;
        cuMemRetainAllocationHandle(&raw mut again, pointer(address + 1)).unwrap();
        assert_eq!(again, one);
        cuMemUnmap(address, 4 * MIB).unwrap();
        assert_eq!(used(), 2 * MIB, "one handle is left");
        assert!(download::<u32>(address, 1).is_err());
        cuMemRelease(again).unwrap();
        assert_eq!(used(), 0);
        assert_eq!(cuMemUnmap(address, 2 * MIB), INVALID);
        cuMemAddressFree(address, 8 * MIB).unwrap();
    });
}

#[test]
fn host_memory_is_not_device_memory() {
    in_child("host_memory_is_not_device_memory", "{}", || {
        context();
        for kind in [CU_MEM_LOCATION_TYPE_HOST, CU_MEM_LOCATION_TYPE_HOST_NUMA] {
            let handle = create(2 * MIB, &on_device(kind, 0)).unwrap();
            let address = reserve(2 * MIB);
            cuMemMap(address, 2 * MIB, 0, handle, 0).unwrap();
            allow(address, 2 * MIB, CU_MEM_LOCATION_TYPE_DEVICE, 3).unwrap();
            upload(address, &[7_u32]).unwrap();
            assert_eq!((download::<u32>(address, 1).unwrap(), used()), (vec![7], 0));
            cuMemUnmap(address, 2 * MIB).unwrap();
            cuMemRelease(handle).unwrap();
        }
        let mut ptr = std::ptr::null_mut();
        cuMemHostAlloc(&raw mut ptr, MIB, 3).unwrap();
        assert_eq!(used(), 0);
        cuMemFreeHost(ptr).unwrap();
    });
}

#[test]
fn mappings_without_access_fault() {
    in_child("mappings_without_access_fault", "{}", || {
        context();
        let handle = create(2 * MIB, &on_device(CU_MEM_LOCATION_TYPE_DEVICE, 0)).unwrap();
        let address = reserve(2 * MIB);
        cuMemMap(address, 2 * MIB, 0, handle, 0).unwrap();
        allow(address, 2 * MIB, CU_MEM_LOCATION_TYPE_DEVICE, 1).unwrap();
        let mut flags = 0;
        let here = CUmemLocation { kind: CU_MEM_LOCATION_TYPE_DEVICE, id: 0 };
        cuMemGetAccess(&raw mut flags, &raw const here, address).unwrap();
        assert_eq!((flags, download::<u32>(address, 1).unwrap()), (1, vec![0]));
        assert!(upload(address, &[1_u32]).is_err(), "it may be read only");
        assert_eq!(cuCtxSynchronize(), Err(CUresult::ERROR_ILLEGAL_ADDRESS));
    });
}

fn pool_figure(pool: CUmemoryPool, attribute: u32) -> u64 {
    let mut value = 0_u64;
    cuMemPoolGetAttribute(pool, attribute, (&raw mut value).cast()).unwrap();
    value
}

/// Reserved, its high mark, used, its high mark; in MiB.
fn pool_figures(pool: CUmemoryPool) -> [u64; 4] {
    [5, 6, 7, 8].map(|attribute| pool_figure(pool, attribute) >> 20)
}

fn take_async(bytes: usize) -> Result<u64, CUresult> {
    let mut address = 0;
    cuMemAllocAsync(&raw mut address, bytes, NO_STREAM).map(|()| address)
}

#[test]
fn pools_hold_what_they_may_keep() {
    in_child("pools_hold_what_they_may_keep", "{}", || {
        context();
        let mut pool = CUmemoryPool::NULL;
        cuDeviceGetDefaultMemPool(&raw mut pool, 0).unwrap();
        let (one, two) = (take_async(MIB).unwrap(), take_async(3 * MIB).unwrap());
        assert_eq!(pool_figures(pool), [6, 6, 4, 4]);
        assert_eq!(used(), 6 * MIB);
        cuMemFreeAsync(two, NO_STREAM).unwrap();
        assert_eq!(pool_figures(pool)[2], 1);
        assert_eq!(take_async(3 * MIB).unwrap(), two, "the same stream takes it again at once");
        cuMemFreeAsync(two, NO_STREAM).unwrap();
        cuStreamSynchronize(NO_STREAM).unwrap();
        assert_eq!(pool_figures(pool), [2, 6, 1, 4], "the release threshold is 0");
        let mut keep = 8 * MIB as u64;
        cuMemPoolSetAttribute(pool, 4, (&raw mut keep).cast()).unwrap();
        let two = take_async(3 * MIB).unwrap();
        cuMemFreeAsync(two, NO_STREAM).unwrap();
        cuCtxSynchronize().unwrap();
        assert_eq!((pool_figures(pool), used()), ([6, 6, 1, 4], 6 * MIB));
        cuMemPoolTrimTo(pool, 0).unwrap();
        assert_eq!((pool_figures(pool)[0], used()), (2, 2 * MIB), "what is in use stays");
        cuMemFree_v2(one).unwrap();
        cuMemPoolTrimTo(pool, 0).unwrap();
        assert_eq!(used(), 0);
        let mut zero = 0_u64;
        cuMemPoolSetAttribute(pool, 6, (&raw mut zero).cast()).unwrap();
        cuMemPoolSetAttribute(pool, 8, (&raw mut zero).cast()).unwrap();
        assert_eq!(pool_figures(pool), [0; 4]);
        assert_eq!(cuMemPoolDestroy(pool), INVALID, "a default pool stays");
        assert_eq!(cuMemFreeAsync(one, NO_STREAM), INVALID);
    });
}

#[test]
fn programs_make_pools_of_their_own() {
    in_child("programs_make_pools_of_their_own", "{}", || {
        context();
        let props = CUmemPoolProps {
            allocType: CU_MEM_ALLOCATION_TYPE_PINNED,
            handleTypes: 0,
            location: CUmemLocation { kind: CU_MEM_LOCATION_TYPE_DEVICE, id: 0 },
            win32SecurityAttributes: std::ptr::null_mut(),
            maxSize: 4 * MIB,
            usage: 0,
            gpuDirectRDMACapable: 0,
            reserved: [0; 53],
        };
        let (mut pool, mut default, mut current) =
            (CUmemoryPool::NULL, CUmemoryPool::NULL, CUmemoryPool::NULL);
        cuMemPoolCreate(&raw mut pool, &raw const props).unwrap();
        cuDeviceGetDefaultMemPool(&raw mut default, 0).unwrap();
        let mut address = 0;
        cuMemAllocFromPoolAsync(&raw mut address, 3 * MIB, pool, NO_STREAM).unwrap();
        assert_eq!((pool_figures(pool)[0], pool_figures(default)[0]), (4, 0));
        let beyond = cuMemAllocFromPoolAsync(&raw mut address, 2 * MIB, pool, NO_STREAM);
        assert_eq!(beyond, Err(CUresult::ERROR_OUT_OF_MEMORY), "the pool's own limit");
        cuDeviceSetMemPool(0, pool).unwrap();
        cuDeviceGetMemPool(&raw mut current, 0).unwrap();
        assert_eq!(current, pool);
        let small = take_async(MIB).unwrap();
        assert_eq!(pool_figures(pool)[2], 4);
        // A destroyed pool goes when its last allocation does.
        cuMemPoolDestroy(pool).unwrap();
        cuDeviceGetMemPool(&raw mut current, 0).unwrap();
        assert_eq!((current, used()), (default, 4 * MIB));
        cuMemFreeAsync(small, NO_STREAM).unwrap();
        cuMemFreeAsync(address, NO_STREAM).unwrap();
        cuCtxSynchronize().unwrap();
        assert_eq!(used(), 0);
    });
}

#[test]
fn arrays_take_what_their_elements_take() {
    in_child("arrays_take_what_their_elements_take", "{}", || {
        context();
        // Width, height, depth, format, channels, flags; bytes.
        let shapes = [
            ([1_000, 0, 0], 0x20, 1, 0, 4_000),
            ([1_000, 10, 0], 0x01, 4, 0, 40_000),
            ([100, 10, 3], 0x10, 2, 0, 12_000),
            ([64, 0, 5], 0x03, 1, CUDA_ARRAY3D_LAYERED, 1_280),
            ([64, 64, 6], 0x08, 1, CUDA_ARRAY3D_CUBEMAP, 24_576),
            ([64, 64, 12], 0x08, 1, CUDA_ARRAY3D_CUBEMAP | CUDA_ARRAY3D_LAYERED, 49_152),
            ([64, 64, 0], 0x91, 4, 0, 2_048),
            ([66, 66, 0], 0x9d, 4, 0, 17 * 17 * 16),
            ([64, 64, 0], 0xc5, 4, 0, 32_768),
        ];
        for ([width, height, depth], format, channels, flags, bytes) in shapes {
            let descriptor = CUDA_ARRAY3D_DESCRIPTOR {
                Width: width,
                Height: height,
                Depth: depth,
                Format: format,
                NumChannels: channels,
                Flags: flags,
            };
            let mut array = CUarray::NULL;
            cuArray3DCreate_v2(&raw mut array, &raw const descriptor).unwrap();
            assert_eq!(used(), usize::next_multiple_of(bytes, 512), "{descriptor:?}");
            let mut told = CUDA_ARRAY_MEMORY_REQUIREMENTS { size: 0, alignment: 0, reserved: [0; 4] };
            cuArrayGetMemoryRequirements(&raw mut told, array, 0).unwrap();
            assert_eq!(told.size, used());
            cuArrayDestroy(array).unwrap();
            assert_eq!(used(), 0);
            assert_eq!(cuArrayDestroy(array), Err(CUresult::ERROR_INVALID_HANDLE));
        }
        let wrong = |width, height, depth, format, channels, flags| CUDA_ARRAY3D_DESCRIPTOR {
            Width: width,
            Height: height,
            Depth: depth,
            Format: format,
            NumChannels: channels,
            Flags: flags,
        };
        for (descriptor, status) in [
            (wrong(0, 1, 0, 1, 1, 0), CUresult::ERROR_INVALID_VALUE),
            (wrong(8, 0, 8, 1, 1, 0), CUresult::ERROR_INVALID_VALUE),
            (wrong(8, 8, 0, 1, 3, 0), CUresult::ERROR_INVALID_VALUE),
            (wrong(8, 4, 6, 1, 1, CUDA_ARRAY3D_CUBEMAP), CUresult::ERROR_INVALID_VALUE),
            (wrong(8, 8, 0, 0x7f, 1, 0), CUresult::ERROR_INVALID_VALUE),
            (wrong(8, 8, 0, 0xb0, 1, 0), CUresult::ERROR_NOT_SUPPORTED),
            (wrong(8, 8, 0, 0x9f, 1, 0), CUresult::ERROR_NOT_SUPPORTED),
            (wrong(8, 8, 0, 1, 1, CUDA_ARRAY3D_SPARSE), CUresult::ERROR_NOT_SUPPORTED),
        ] {
            let mut array = CUarray::NULL;
            let refused = cuArray3DCreate_v2(&raw mut array, &raw const descriptor);
            assert_eq!(refused, Err(status), "{descriptor:?}");
        }
        let square = wrong(16, 16, 0, 0x20, 1, 0);
        let mut mipmap = CUmipmappedArray::NULL;
        cuMipmappedArrayCreate(&raw mut mipmap, &raw const square, 99).unwrap();
        assert_eq!(used(), usize::next_multiple_of(4 * (256 + 64 + 16 + 4 + 1), 512));
        let mut level = CUarray::NULL;
        cuMipmappedArrayGetLevel(&raw mut level, mipmap, 4).unwrap();
        assert_eq!(cuMipmappedArrayGetLevel(&raw mut level, mipmap, 5), INVALID);
        assert_eq!(cuArrayDestroy(level), Err(CUresult::ERROR_INVALID_HANDLE), "the mipmap owns it");
        cuMipmappedArrayDestroy(mipmap).unwrap();
        assert_eq!(used(), 0);
    });
}

#[test]
fn bytes_go_through_arrays() {
    in_child("bytes_go_through_arrays", "{}", || {
        context();
        let descriptor = CUDA_ARRAY_DESCRIPTOR { Width: 8, Height: 4, Format: 0x20, NumChannels: 1 };
        let mut array = CUarray::NULL;
        cuArrayCreate_v2(&raw mut array, &raw const descriptor).unwrap();
        let host: Vec<u32> = (0..32).collect();
        cuMemcpyHtoA_v2(array, 0, host.as_ptr().cast(), 128).unwrap();
        assert_eq!(cuMemcpyHtoA_v2(array, 4, host.as_ptr().cast(), 128), INVALID);
        // Columns 2 to 5 of rows 1 to 2, into linear memory.
        let linear = plain(512);
        let copy = CUDA_MEMCPY2D {
            srcXInBytes: 8,
            srcY: 1,
            srcMemoryType: 3,
            srcHost: std::ptr::null(),
            srcDevice: 0,
            srcArray: array.0,
            srcPitch: 0,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: 2,
            dstHost: std::ptr::null_mut(),
            dstDevice: linear,
            dstArray: std::ptr::null_mut(),
            dstPitch: 16,
            WidthInBytes: 16,
            Height: 2,
        };
        cuMemcpy2D_v2(&raw const copy).unwrap();
        assert_eq!(download::<u32>(linear, 8).unwrap(), [10, 11, 12, 13, 18, 19, 20, 21]);
        let mut back = [0_u32; 2];
        cuMemcpyAtoH_v2(back.as_mut_ptr().cast(), array, 120, 8).unwrap();
        assert_eq!(back, [30, 31]);
    });
}

#[test]
fn managed_memory_is_the_hosts_and_charged_to_the_device() {
    in_child("managed_memory_is_the_hosts_and_charged_to_the_device", "{}", || {
        context();
        let mut address = 0;
        cuMemAllocManaged(&raw mut address, 10_000, 1).unwrap();
        assert_eq!(used(), 12_288, "whole pages");
        let host: *mut u32 = pointer(address).cast();
        // SAFETY: managed memory is the program's to use; nothing runs on the device.
        unsafe { host.write(41) };
        let linear = plain(512);
        cuMemcpy(linear, address, 4).unwrap();
        assert_eq!(download::<u32>(linear, 1).unwrap(), [41]);
        cuMemsetD32_v2(address, 42, 1).unwrap();
        cuCtxSynchronize().unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { host.read() }, 42);
        let (mut managed, mut kind) = (0_u32, 0_u32);
        cuPointerGetAttribute((&raw mut managed).cast(), 8, address).unwrap();
        cuPointerGetAttribute((&raw mut kind).cast(), 2, address).unwrap();
        assert_eq!((managed, kind), (1, 2));
        cuMemFree_v2(linear).unwrap();
        cuMemFree_v2(address).unwrap();
        assert_eq!(used(), 0);
        assert_eq!(cuMemAllocManaged(&raw mut address, 100 << 30, 1), Err(CUresult::ERROR_OUT_OF_MEMORY));
        assert_eq!(cuMemAllocManaged(&raw mut address, 1, 0), INVALID);
    });
}

fn pointer(address: u64) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(usize::try_from(address).unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap();
    }
    bytes
}

#[expect(clippy::print_stdout, reason = "the other process reads it there")]
fn say(line: &str) {
    println!("\n@{line}");
    std::io::stdout().flush().unwrap();
}

fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim().to_owned()
}

fn listen(child: &mut std::process::Child) -> String {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    lines.map_while(Result::ok).find_map(|line| line.strip_prefix('@').map(str::to_owned)).unwrap()
}

fn tell(child: &mut std::process::Child, line: &str) {
    writeln!(child.stdin.as_mut().unwrap(), "{line}").unwrap();
}

#[test]
fn processes_share_what_one_of_them_pays() {
    let name = "processes_share_what_one_of_them_pays";
    match body().as_deref() {
        Some("exporter") => {
            context();
            let address = plain(MIB);
            upload(address + 4, &[5_u32]).unwrap();
            let mut ipc = CUipcMemHandle { reserved: [0; 64] };
            cuIpcGetMemHandle(&raw mut ipc, address + 4).unwrap();
            let prop = on_device(CU_MEM_LOCATION_TYPE_DEVICE, 1);
            let handle = create(2 * MIB, &prop).unwrap();
            let mut descriptor = 0_i32;
            cuMemExportToShareableHandle((&raw mut descriptor).cast(), handle, 1, 0).unwrap();
            cuMemRelease(handle).unwrap();
            assert_eq!(used(), 3 * MIB, "the descriptor keeps the memory");
            say(&format!("{} {descriptor} {}", hex(&ipc.reserved), std::process::id()));
            assert_eq!(hear(), "opened");
            assert_eq!(download::<u32>(address, 2).unwrap(), [6, 5], "the importer has written");
            // SAFETY: the descriptor is this process's own.
            unsafe { libc::close(descriptor) };
            say("closed");
            hear();
        }
        Some("importer") => {
            context();
            let told = hear();
            let mut words = told.split(' ');
            let ipc = CUipcMemHandle { reserved: unhex(words.next().unwrap()) };
            let (descriptor, pid) = (words.next().unwrap(), words.next().unwrap());
            let mut address = 0;
            cuIpcOpenMemHandle_v2(&raw mut address, ipc, 1).unwrap();
            assert_eq!(download::<u32>(address, 2).unwrap(), [0, 5], "the whole allocation, from its start");
            upload(address, &[6_u32]).unwrap();
            // Another process's descriptor, as it would come over a socket.
            let file = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/{descriptor}"));
            let file = file.unwrap();
            let number = usize::try_from(std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap();
            let mut handle = 0;
            cuMemImportFromShareableHandle(&raw mut handle, pointer(number as u64), 1).unwrap();
            drop(file);
            let virtual_address = reserve(2 * MIB);
            cuMemMap(virtual_address, 2 * MIB, 0, handle, 0).unwrap();
            allow(virtual_address, 2 * MIB, CU_MEM_LOCATION_TYPE_DEVICE, 3).unwrap();
            cuMemRelease(handle).unwrap();
            upload(virtual_address, &[9_u32]).unwrap();
            say("opened");
            assert_eq!(hear(), "alone");
            assert_eq!(download::<u32>(virtual_address, 1).unwrap(), [9], "the mapping keeps it");
            cuMemUnmap(virtual_address, 2 * MIB).unwrap();
            cuIpcCloseMemHandle(address).unwrap();
            assert!(cuIpcCloseMemHandle(address).is_err());
            say("unmapped");
            hear();
        }
        Some(other) => panic!("no such part: {other}"),
        None => {
            let device = Device::serve("{}");
            let memory = |pid: u32| {
                let statistics = device.control.statistics().unwrap();
                let processes = statistics["processes"].as_array().unwrap();
                let found = processes.iter().find(|process| process["pid"] == pid).unwrap();
                found["memory_bytes"].as_u64().unwrap()
            };
            let (mut exporter, mut importer) =
                (device.start(name, "exporter"), device.start(name, "importer"));
            let told = listen(&mut exporter);
            tell(&mut importer, &told);
            assert_eq!(listen(&mut importer), "opened");
            assert_eq!((memory(exporter.id()), memory(importer.id())), (3 << 20, 0), "the exporter pays");
            tell(&mut exporter, "opened");
            assert_eq!(listen(&mut exporter), "closed");
            assert_eq!(device.used_bytes(), 3 << 20);
            tell(&mut exporter, "end");
            assert!(exporter.wait().unwrap().success());
            support::eventually("only the importer's mapping is left", || device.used_bytes() == 2 << 20);
            assert_eq!(memory(importer.id()), 2 << 20, "who still holds it pays now");
            tell(&mut importer, "alone");
            assert_eq!(listen(&mut importer), "unmapped");
            assert_eq!(device.used_bytes(), 0);
            tell(&mut importer, "end");
            assert!(importer.wait().unwrap().success());
        }
    }
}

#[test]
fn multicast_objects_hold_what_is_bound() {
    in_child("multicast_objects_hold_what_is_bound", "{}", || {
        context();
        let prop = CUmulticastObjectProp { numDevices: 1, size: 4 * MIB, handleTypes: 0, flags: 0 };
        let mut object = 0;
        cuMulticastCreate(&raw mut object, &raw const prop).unwrap();
        assert_eq!(used(), 0, "it takes no memory itself");
        let memory = create(2 * MIB, &on_device(CU_MEM_LOCATION_TYPE_DEVICE, 0)).unwrap();
        assert_eq!(cuMulticastBindMem(object, 0, memory, 0, 2 * MIB, 0), INVALID, "no device was added");
        cuMulticastAddDevice(object, 0).unwrap();
        assert_eq!(cuMulticastAddDevice(object, 0), INVALID, "the team is complete");
        cuMulticastBindMem(object, 0, memory, 0, 2 * MIB, 0).unwrap();
        assert_eq!(cuMulticastBindMem(object, 0, memory, 0, 2 * MIB, 0), INVALID, "something is bound there");
        cuMemRelease(memory).unwrap();
        assert_eq!(used(), 2 * MIB, "bound memory stays");
        cuMulticastUnbind(object, 0, 0, 2 * MIB).unwrap();
        assert_eq!(used(), 0);
        let memory = create(2 * MIB, &on_device(CU_MEM_LOCATION_TYPE_DEVICE, 0)).unwrap();
        cuMulticastBindMem(object, 2 * MIB, memory, 0, 2 * MIB, 0).unwrap();
        cuMemRelease(memory).unwrap();
        cuMemRelease(object).unwrap();
        assert_eq!(used(), 0, "the object's end unbinds");
    });
}

#[test]
fn contexts_and_modules_take_memory_where_the_device_says_so() {
    let config = r#"{"context_bytes": 4194304, "module_bytes": 1048576}"#;
    in_child("contexts_and_modules_take_memory_where_the_device_says_so", config, || {
        context();
        assert_eq!(used(), 4 * MIB);
        let module = support::module(support::SAXPY).unwrap();
        assert_eq!(used(), 5 * MIB + 512, "its variables, too");
        cuModuleUnload(CUmodule(module.cast())).unwrap();
        assert_eq!(used(), 4 * MIB);
        let mut second = CUcontext::NULL;
        cuCtxCreate_v2(&raw mut second, 0, 0).unwrap();
        assert_eq!(used(), 8 * MIB);
        let _left = (plain(MIB), take_async(MIB).unwrap());
        cuCtxDestroy_v2(second).unwrap();
        cuDevicePrimaryCtxRetain(&raw mut second, 0).unwrap();
        cuCtxSetCurrent(second).unwrap();
        assert_eq!(used(), 6 * MIB, "a pool outlives a context");
        cuDevicePrimaryCtxReset(0).unwrap();
        cuDevicePrimaryCtxRetain(&raw mut second, 0).unwrap();
        cuCtxSetCurrent(second).unwrap();
        assert_eq!(used(), 4 * MIB, "but not the last one on the device");
    });
}

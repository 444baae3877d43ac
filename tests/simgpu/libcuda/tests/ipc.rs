//! Events and pools that two processes share; and the oldest and the drawing calls, which have errors of their own.
#![expect(unsafe_code, reason = "the driver API is C")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what a process says is how the test follows it")]

mod support;

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout};

use cudarc::driver::sys::{self, CUresult};
use support::*;

const UNTIMED: u32 = 2;
const INTERPROCESS: u32 = 4;
const DESCRIPTOR: sys::CUmemAllocationHandleType =
    sys::CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;

/// Says a line that the other process is to hear.
fn say(line: &str) {
    println!("say {line}");
    std::io::stdout().flush().unwrap();
}

fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(text: &str) -> [u8; 64] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

struct Peer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    fn start(device: &Device, name: &str, body: &str) -> Self {
        let mut child = device.start(name, body);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn says(&mut self) -> String {
        let said = self.lines.by_ref().map_while(Result::ok).find_map(|line| {
            // What a test says comes after the harness's own words, perhaps on the same line.
            line.split_once("say ").map(|(_, said)| said.to_owned())
        });
        said.expect("it ended early")
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn ends_well(mut self) {
        let said: Vec<String> = self.lines.by_ref().map_while(Result::ok).collect();
        assert!(self.child.wait().unwrap().success(), "{said:#?}");
    }
}

fn records() {
    context();
    let (gate, mark) = (Gate::new(), event(UNTIMED | INTERPROCESS));
    let work = stream(1);
    let mut handle = sys::CUipcEventHandle { reserved: [0; 64] };
    cu!(cuIpcGetEventHandle(&raw mut handle, mark)).unwrap();
    gate.hold(work);
    cu!(cuEventRecord(mark, work)).unwrap();
    assert_eq!(cu!(cuEventQuery(mark)), Err(CUresult::CUDA_ERROR_NOT_READY));
    let mut own = std::ptr::null_mut();
    assert!(cu!(cuIpcOpenEventHandle(&raw mut own, handle)).is_err(), "not in its own process");
    say(&hex(&handle.reserved.map(i8::cast_unsigned)));
    assert_eq!(hear(), "go on");
    gate.open();
    cu!(cuEventSynchronize(mark)).unwrap();
    assert_eq!(hear(), "end");
    cu!(cuEventDestroy_v2(mark)).unwrap();
}

fn waits() {
    context();
    let handle = sys::CUipcEventHandle { reserved: bytes(&hear()).map(u8::cast_signed) };
    let mut mark = std::ptr::null_mut();
    cu!(cuIpcOpenEventHandle(&raw mut mark, handle)).unwrap();
    assert_eq!(cu!(cuEventQuery(mark)), Err(CUresult::CUDA_ERROR_NOT_READY));
    let (work, behind) = (stream(1), event(UNTIMED));
    cu!(cuStreamWaitEvent(work, mark, 0)).unwrap();
    cu!(cuEventRecord(behind, work)).unwrap();
    assert_eq!(cu!(cuEventQuery(behind)), Err(CUresult::CUDA_ERROR_NOT_READY));
    let mut again = handle;
    assert!(cu!(cuIpcGetEventHandle(&raw mut again, mark)).is_err(), "it is another process's");
    say("waiting");
    cu!(cuEventSynchronize(behind)).unwrap();
    cu!(cuEventSynchronize(mark)).unwrap();
    assert_eq!(cu!(cuEventQuery(mark)), Ok(()));
    // A later record counts again, whoever makes it.
    cu!(cuEventRecord(mark, work)).unwrap();
    cu!(cuEventSynchronize(mark)).unwrap();
    cu!(cuEventDestroy_v2(mark)).unwrap();
    say("waited");
}

#[test]
fn a_stream_waits_for_an_event_of_another_process() {
    let name = "a_stream_waits_for_an_event_of_another_process";
    match body().as_deref() {
        Some("records") => return records(),
        Some(_) => return waits(),
        None => {}
    }
    let device = Device::serve("{}");
    let mut maker = Peer::start(&device, name, "records");
    let mut other = Peer::start(&device, name, "waits");
    other.tell(&maker.says());
    assert_eq!(other.says(), "waiting");
    maker.tell("go on");
    assert_eq!(other.says(), "waited");
    maker.tell("end");
    maker.ends_well();
    other.ends_well();
}

#[test]
fn events_between_processes_are_without_times() {
    in_child("events_between_processes_are_without_times", "{}", || {
        context();
        let mut made = std::ptr::null_mut();
        let timed = cu!(cuEventCreate(&raw mut made, INTERPROCESS));
        assert_eq!(timed, Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        let mut handle = sys::CUipcEventHandle { reserved: [0; 64] };
        let private = event(UNTIMED);
        assert!(cu!(cuIpcGetEventHandle(&raw mut handle, private)).is_err());
        assert!(cu!(cuIpcOpenEventHandle(&raw mut made, handle)).is_err(), "no event's handle");
    });
}

fn exports() {
    context();
    // SAFETY: a structure of numbers, pointers and enumerations that have a zero value.
    let mut props: sys::CUmemPoolProps = unsafe { std::mem::zeroed() };
    props.allocType = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    props.handleTypes = DESCRIPTOR;
    props.location.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    let (mut pool, mut address, mut descriptor) = (std::ptr::null_mut(), 0, -1i32);
    cu!(cuMemPoolCreate(&raw mut pool, &raw const props)).unwrap();
    cu!(cuMemAllocFromPoolAsync(&raw mut address, 4096, pool, NULL)).unwrap();
    upload(address, &[7u8; 64]).unwrap();
    cu!(cuMemPoolExportToShareableHandle((&raw mut descriptor).cast(), pool, DESCRIPTOR, 0)).unwrap();
    let mut data = sys::CUmemPoolPtrExportData { reserved: [0; 64] };
    cu!(cuMemPoolExportPointer(&raw mut data, address)).unwrap();
    say(&format!("/proc/{}/fd/{descriptor} {}", std::process::id(), hex(&data.reserved)));
    assert_eq!(hear(), "end");
    assert_eq!(download::<u8>(address, 64).unwrap(), [9u8; 64], "the importer wrote here");
    cu!(cuMemFreeAsync(address, NULL)).unwrap();
    cu!(cuCtxSynchronize()).unwrap();
    cu!(cuMemPoolDestroy(pool)).unwrap();
}

fn imports() {
    use std::os::fd::AsRawFd;
    context();
    let told = hear();
    let (path, data) = told.split_once(' ').unwrap();
    let file = std::fs::File::open(path).unwrap();
    let mut data = sys::CUmemPoolPtrExportData { reserved: bytes(data) };
    let (mut pool, mut address) = (std::ptr::null_mut(), 0);
    let named = std::ptr::without_provenance_mut(usize::try_from(file.as_raw_fd()).unwrap());
    cu!(cuMemPoolImportFromShareableHandle(&raw mut pool, named, DESCRIPTOR, 0)).unwrap();
    cu!(cuMemPoolImportPointer(&raw mut address, pool, &raw mut data)).unwrap();
    assert_eq!(download::<u8>(address, 64).unwrap(), [7u8; 64]);
    upload(address, &[9u8; 64]).unwrap();
    // An imported pool gives nothing of its own.
    let mut none = 0;
    assert!(cu!(cuMemAllocFromPoolAsync(&raw mut none, 64, pool, NULL)).is_err());
    assert!(cu!(cuDeviceSetMemPool(0, pool)).is_err());
    cu!(cuMemFreeAsync(address, NULL)).unwrap();
    assert!(download::<u8>(address, 64).is_err(), "out of sight again");
    cu!(cuMemPoolImportPointer(&raw mut address, pool, &raw mut data)).unwrap();
    cu!(cuMemFree_v2(address)).unwrap();
    cu!(cuMemPoolDestroy(pool)).unwrap();
    say("imported");
}

#[test]
fn memory_of_a_pool_is_shown_to_another_process_and_charged_once() {
    let name = "memory_of_a_pool_is_shown_to_another_process_and_charged_once";
    match body().as_deref() {
        Some("exports") => return exports(),
        Some(_) => return imports(),
        None => {}
    }
    let device = Device::serve("{}");
    let mut maker = Peer::start(&device, name, "exports");
    let told = maker.says();
    let alone = device.used_bytes();
    let mut other = Peer::start(&device, name, "imports");
    other.tell(&told);
    assert_eq!(other.says(), "imported");
    assert_eq!(device.used_bytes(), alone, "the importer pays nothing");
    maker.tell("end");
    maker.ends_well();
    other.ends_well();
}

#[test]
fn a_context_lives_until_its_last_user_has_gone() {
    in_child("a_context_lives_until_its_last_user_has_gone", "{}", || {
        let primary = context();
        let (mut made, mut attached) = (std::ptr::null_mut(), std::ptr::null_mut());
        cu!(cuCtxCreate_v2(&raw mut made, 0, 0)).unwrap();
        assert_eq!(cu!(cuCtxAttach(&raw mut attached, 1)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
        cu!(cuCtxAttach(&raw mut attached, 0)).unwrap();
        assert_eq!(attached, made);
        let address = allocate(64).unwrap();
        cu!(cuCtxDetach(made)).unwrap();
        assert_eq!(download::<u8>(address, 1).unwrap(), [0], "somebody is left");
        cu!(cuCtxDetach(made)).unwrap();
        assert!(cu!(cuCtxDetach(made)).is_err());
        cu!(cuCtxSetCurrent(primary)).unwrap();
        assert!(download::<u8>(address, 1).is_err(), "its memory went with it");
        assert_eq!(cu!(cuCtxDetach(primary)), Err(CUresult::CUDA_ERROR_INVALID_CONTEXT));
    });
}

#[test]
fn code_is_loaded_from_a_file() {
    in_child("code_is_loaded_from_a_file", "{}", || {
        use std::ptr::null_mut;
        context();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("spin.ptx");
        std::fs::write(&file, SPIN).unwrap();
        let path = std::ffi::CString::new(file.to_str().unwrap()).unwrap();
        let load = |path: &std::ffi::CStr| {
            let mut library = null_mut();
            let (none, nothing) = (null_mut(), null_mut());
            let (path, out) = (path.as_ptr(), &raw mut library);
            cu!(cuLibraryLoadFromFile(out, path, none, nothing, 0, null_mut(), null_mut(), 0))
                .map(|()| library)
        };
        let library = load(&path).unwrap();
        let mut kernel = null_mut();
        cu!(cuLibraryGetKernel(&raw mut kernel, library, c"spin".as_ptr())).unwrap();
        assert_eq!(load(c"/nonexistent").err(), Some(CUresult::CUDA_ERROR_FILE_NOT_FOUND));
    });
}

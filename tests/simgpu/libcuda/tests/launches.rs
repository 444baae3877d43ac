//! Ways to launch beside the ordinary one: the oldest form, launches that overlap the one before, cooperative ones over
//! several devices, and green contexts.
#![expect(unsafe_code, reason = "the driver API is C")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::ffi::c_void;
use std::ptr::null_mut;

use cudarc::driver::sys::{self, CUresult, CUstream};
use support::*;

fn counter() -> u64 {
    let address = allocate(64).unwrap();
    cu!(cuMemsetD8_v2(address, 0, 64)).unwrap();
    cu!(cuCtxSynchronize()).unwrap();
    address
}

fn word(address: u64) -> u64 {
    download::<u64>(address, 1).unwrap()[0]
}

/// Milliseconds of device time that some work takes in a stream.
fn span(stream: CUstream, work: impl FnOnce()) -> f32 {
    let (begun, ended) = (event(0), event(0));
    let gate = Gate::new();
    gate.hold(stream);
    cu!(cuEventRecord(begun, stream)).unwrap();
    work();
    cu!(cuEventRecord(ended, stream)).unwrap();
    gate.open();
    elapsed(begun, ended)
}

#[test]
fn the_oldest_form_launches_what_was_set() {
    in_child("the_oldest_form_launches_what_was_set", "{}", || {
        context();
        let saxpy = function(module(SAXPY).unwrap(), c"saxpy");
        let (x, y) = (allocate(256).unwrap(), allocate(256).unwrap());
        upload(x, &[1.0_f32; 64]).unwrap();
        upload(y, &[2.0_f32; 64]).unwrap();
        assert_eq!(cu!(cuLaunch(saxpy)), Err(CUresult::CUDA_ERROR_INVALID_VALUE), "nothing was set");
        cu!(cuFuncSetBlockShape(saxpy, 32, 1, 1)).unwrap();
        cu!(cuParamSeti(saxpy, 0, 64)).unwrap();
        cu!(cuParamSetf(saxpy, 4, 3.0)).unwrap();
        assert_eq!(cu!(cuLaunch(saxpy)), Err(CUresult::CUDA_ERROR_INVALID_VALUE), "too few parameters");
        cu!(cuParamSetv(saxpy, 8, param(&x), 8)).unwrap();
        cu!(cuParamSetv(saxpy, 16, param(&y), 8)).unwrap();
        cu!(cuParamSetSize(saxpy, 24)).unwrap();
        cu!(cuLaunch(saxpy)).unwrap();
        let seen = download::<f32>(y, 64).unwrap();
        assert_eq!((seen[0], seen[31], seen[32]), (5.0, 5.0, 2.0), "one block");
        cu!(cuLaunchGrid(saxpy, 2, 1)).unwrap();
        let stream = stream(1);
        cu!(cuLaunchGridAsync(saxpy, 2, 1, stream)).unwrap();
        cu!(cuStreamSynchronize(stream)).unwrap();
        let seen = download::<f32>(y, 64).unwrap();
        assert_eq!((seen[0], seen[63]), (11.0, 8.0));
        assert_eq!(cu!(cuLaunchGrid(saxpy, 0, 1)), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    });
}

/// A launch that may overlap the one before it.
fn launch_overlapping(function: sys::CUfunction, stream: CUstream, counter: &u64) -> Outcome<()> {
    use sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION as ALLOWED;
    let mut attribute = sys::CUlaunchAttribute {
        id: ALLOWED,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
    };
    let config = sys::CUlaunchConfig {
        gridDimX: 1,
        gridDimY: 1,
        gridDimZ: 1,
        blockDimX: 32,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: 0,
        hStream: stream,
        attrs: &mut attribute,
        numAttrs: 1,
    };
    let mut params = [param(counter)];
    cu!(cuLaunchKernelEx(&config, function, params.as_mut_ptr(), null_mut()))
}

#[test]
fn a_dependent_launch_saves_its_prologue_behind_a_kernel_and_nothing_else() {
    let config = r#"{"kernels": {"spin": {"base_ns": 10000000, "prologue_ns": 4000000}}}"#;
    let name = "a_dependent_launch_saves_its_prologue_behind_a_kernel_and_nothing_else";
    in_child(name, config, || {
        context();
        let spin = function(module(SPIN).unwrap(), c"spin");
        let (count, stream) = (counter(), stream(1));
        let plain = || launch(spin, 1, stream, [param(&count)]).unwrap();
        let dependent = || launch_overlapping(spin, stream, &count).unwrap();
        assert_eq!(span(stream, || (0..3).for_each(|_| plain())), 30.0);
        let behind = || {
            plain();
            dependent();
            dependent();
        };
        assert_eq!(span(stream, behind), 22.0);
        // Whatever is put in between takes the overlap away.
        let apart = || {
            plain();
            cu!(cuStreamWriteValue32_v2(stream, count + 32, 1, 0)).unwrap();
            dependent();
        };
        assert_eq!(span(stream, apart), 20.0);
        assert_eq!(span(stream, dependent), 10.0);
        assert_eq!(word(count), 9, "what is computed is the same");
    });
}

#[test]
fn one_cooperative_launch_runs_on_several_devices() {
    let config = r#"{"device_count": 2, "kernels": {"spin": {"base_ns": 10000000}}}"#;
    in_child("one_cooperative_launch_runs_on_several_devices", config, || {
        cu!(cuInit(0)).unwrap();
        let parts: Vec<_> = (0..2)
            .map(|device| {
                let mut context = null_mut();
                cu!(cuDevicePrimaryCtxRetain(&mut context, device)).unwrap();
                cu!(cuCtxSetCurrent(context)).unwrap();
                let spin = function(module(SPIN).unwrap(), c"spin");
                (context, spin, counter(), stream(1))
            })
            .collect();
        let mut params: Vec<[*mut c_void; 1]> = parts.iter().map(|part| [param(&part.2)]).collect();
        let mut list: Vec<sys::CUDA_LAUNCH_PARAMS> = parts
            .iter()
            .zip(&mut params)
            .map(|(part, params)| sys::CUDA_LAUNCH_PARAMS {
                function: part.1,
                gridDimX: 1,
                gridDimY: 1,
                gridDimZ: 1,
                blockDimX: 32,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: 0,
                hStream: part.3,
                kernelParams: params.as_mut_ptr(),
            })
            .collect();
        // A kernel before it on one device holds it up on both.
        cu!(cuCtxSetCurrent(parts[0].0)).unwrap();
        let gate = Gate::new();
        gate.hold(parts[0].3);
        launch(parts[0].1, 1, parts[0].3, [param(&parts[0].2)]).unwrap();
        cu!(cuCtxSetCurrent(parts[1].0)).unwrap();
        let together = |list: &mut [sys::CUDA_LAUNCH_PARAMS]| {
            let count = u32::try_from(list.len()).unwrap();
            cu!(cuLaunchCooperativeKernelMultiDevice(list.as_mut_ptr(), count, 0))
        };
        let (begun, ended) = (event(0), event(0));
        gate.hold(parts[1].3);
        cu!(cuEventRecord(begun, parts[1].3)).unwrap();
        together(&mut list).unwrap();
        cu!(cuEventRecord(ended, parts[1].3)).unwrap();
        gate.open();
        assert_eq!(elapsed(begun, ended), 20.0);
        assert_eq!(word(parts[1].2), 1);
        cu!(cuCtxSetCurrent(parts[0].0)).unwrap();
        cu!(cuStreamSynchronize(parts[0].3)).unwrap();
        assert_eq!(word(parts[0].2), 2);
        // Not twice on one device, not in different shapes, not in a default stream.
        let invalid = Err(CUresult::CUDA_ERROR_INVALID_VALUE);
        let mut wrong = list.clone();
        wrong[1].gridDimX = 2;
        assert_eq!(together(&mut wrong), invalid);
        let mut wrong = list.clone();
        wrong[1].hStream = null_mut();
        assert_eq!(together(&mut wrong), invalid);
        let mut wrong = vec![list[0], list[0]];
        assert_eq!(together(&mut wrong), Err(CUresult::CUDA_ERROR_INVALID_DEVICE));
    });
}

const SM: sys::CUdevResourceType = sys::CUdevResourceType::CU_DEV_RESOURCE_TYPE_SM;

fn device_resource() -> sys::CUdevResource {
    // SAFETY: plain numbers, and enumerations that have a zero.
    let mut resource: sys::CUdevResource = unsafe { std::mem::zeroed() };
    cu!(cuDeviceGetDevResource(0, &mut resource, SM)).unwrap();
    resource
}

fn sms(resource: &sys::CUdevResource) -> u32 {
    // SAFETY: the resource is one of SMs.
    unsafe { resource.__bindgen_anon_1.sm.smCount }
}

/// Groups of at least so many SMs, and what is left.
fn split(
    whole: &sys::CUdevResource,
    groups: u32,
    least: u32,
    flags: u32,
) -> Outcome<Vec<sys::CUdevResource>> {
    let mut made = vec![*whole; groups as usize];
    let (mut count, mut rest) = (groups, *whole);
    cu!(cuDevSmResourceSplitByCount(made.as_mut_ptr(), &mut count, whole, &mut rest, flags, least))?;
    made.truncate(count as usize);
    Ok(made)
}

fn green(group: &sys::CUdevResource) -> sys::CUgreenCtx {
    let (mut desc, mut context, mut group) = (null_mut(), null_mut(), *group);
    cu!(cuDevResourceGenerateDesc(&mut desc, &mut group, 1)).unwrap();
    cu!(cuGreenCtxCreate(&mut context, desc, 0, 1)).unwrap();
    context
}

#[test]
fn sms_are_split_in_whole_units() {
    in_child("sms_are_split_in_whole_units", "{}", || {
        context();
        let whole = device_resource();
        assert_eq!(sms(&whole), 132);
        let mut count = 0;
        let none: *mut sys::CUdevResource = null_mut();
        cu!(cuDevSmResourceSplitByCount(none, &mut count, &whole, none, 0, 8)).unwrap();
        assert_eq!(count, 16, "132 SMs in units of 8");
        let groups = split(&whole, 2, 60, 0).unwrap();
        assert_eq!(groups.iter().map(sms).collect::<Vec<_>>(), [64, 64]);
        let fine = split(&whole, 3, 5, 1).unwrap();
        assert_eq!(fine.iter().map(sms).collect::<Vec<_>>(), [6, 6, 6]);
        assert_eq!(split(&whole, 1, 133, 0).err(), Some(CUresult::CUDA_ERROR_INVALID_VALUE));
        let context = green(&groups[1]);
        let mut own = whole;
        cu!(cuGreenCtxGetDevResource(context, &mut own, SM)).unwrap();
        assert_eq!(sms(&own), 64);
        cu!(cuGreenCtxDestroy(context)).unwrap();
        assert_eq!(cu!(cuGreenCtxDestroy(context)), Err(CUresult::CUDA_ERROR_INVALID_CONTEXT));
    });
}

#[test]
fn green_contexts_keep_to_their_sms() {
    // A wave takes 10 ms: as many threads as the SMs hold, 2,048 each.
    let config = r#"{"kernels": {"spin": {"base_ns": 0, "wave_ns": 10000000}}}"#;
    in_child("green_contexts_keep_to_their_sms", config, || {
        context();
        let groups = split(&device_resource(), 2, 64, 0).unwrap();
        let (one, two) = (green(&groups[0]), green(&groups[1]));
        let count = counter();
        let open = |context| {
            let mut stream = null_mut();
            cu!(cuGreenCtxStreamCreate(&mut stream, context, 1, 0)).unwrap();
            stream
        };
        let enter = |green| {
            let mut context = null_mut();
            cu!(cuCtxFromGreenCtx(&mut context, green)).unwrap();
            cu!(cuCtxSetCurrent(context)).unwrap();
            function(module(SPIN).unwrap(), c"spin")
        };
        // 128 SMs' worth of threads on 64 of them are two waves.
        let blocks = 128 * 2_048 / 32;
        let first = enter(one);
        let stream = open(one);
        let took = span(stream, || launch(first, blocks, stream, [param(&count)]).unwrap());
        assert_eq!(took, 20.0);
        // Two streams of one group take turns, and another group runs beside them.
        let (second, beside) = (enter(two), open(two));
        let full = 64 * 2_048 / 32;
        let mut green_of = null_mut();
        cu!(cuStreamGetGreenCtx(beside, &mut green_of)).unwrap();
        assert_eq!(green_of, two);
        let also = open(one);
        let took = span(beside, || {
            launch(second, full, beside, [param(&count)]).unwrap();
        });
        assert_eq!(took, 10.0);
        enter(one);
        let took = span(stream, || {
            let begun = event(2);
            cu!(cuEventRecord(begun, stream)).unwrap();
            cu!(cuStreamWaitEvent(also, begun, 0)).unwrap();
            launch(first, full, stream, [param(&count)]).unwrap();
            launch(first, full, also, [param(&count)]).unwrap();
            let done = event(2);
            cu!(cuEventRecord(done, also)).unwrap();
            cu!(cuStreamWaitEvent(stream, done, 0)).unwrap();
        });
        assert_eq!(took, 20.0);
        // A primary context includes its green ones when it is waited for, and a green one only itself.
        enter(two);
        launch(second, full, beside, [param(&count)]).unwrap();
        enter(one);
        cu!(cuCtxSynchronize()).unwrap();
        assert_eq!(cu!(cuStreamQuery(beside)), Err(CUresult::CUDA_ERROR_NOT_READY));
        context();
        cu!(cuCtxSynchronize()).unwrap();
        assert_eq!(cu!(cuStreamQuery(beside)), Ok(()));
        for context in [one, two] {
            cu!(cuGreenCtxDestroy(context)).unwrap();
        }
        context();
        assert_eq!(word(count), 5, "memory is the primary context's");
    });
}

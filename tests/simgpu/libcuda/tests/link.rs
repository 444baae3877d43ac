//! The driver's own linker, and what is asked of a library's kernels.
#![expect(unsafe_code, reason = "the driver API is C")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::ffi::{CStr, CString, c_void};

use cudarc::driver::sys::{self, CUresult};
use support::*;

const PTX: sys::CUjitInputType = sys::CUjitInputType::CU_JIT_INPUT_PTX;

fn link(count: u32, options: *mut sys::CUjit_option, values: *mut *mut c_void) -> sys::CUlinkState {
    let mut state = std::ptr::null_mut();
    cu!(cuLinkCreate_v2(count, options, values, &mut state)).unwrap();
    state
}

fn add(state: sys::CUlinkState, kind: sys::CUjitInputType, text: &CStr) -> Outcome<()> {
    let none = std::ptr::null_mut();
    let bytes = text.to_bytes_with_nul();
    let data = bytes.as_ptr().cast_mut().cast();
    cu!(cuLinkAddData_v2(state, kind, data, bytes.len(), c"text".as_ptr(), 0, none, none.cast()))
}

#[test]
fn a_linked_text_runs() {
    in_child("a_linked_text_runs", "{}", || {
        context();
        let state = link(0, std::ptr::null_mut(), std::ptr::null_mut());
        let (mut image, mut size) = (std::ptr::null_mut(), 0);
        let early = cu!(cuLinkComplete(state, &mut image, &mut size));
        assert_eq!(early, Err(CUresult::CUDA_ERROR_INVALID_VALUE), "nothing was added yet");
        add(state, PTX, &CString::new(SPIN).unwrap()).unwrap();
        cu!(cuLinkComplete(state, &mut image, &mut size)).unwrap();
        assert!(0 < size);
        let mut module = std::ptr::null_mut();
        cu!(cuModuleLoadData(&mut module, image)).unwrap();
        cu!(cuLinkDestroy(state)).unwrap();
        assert_eq!(cu!(cuLinkDestroy(state)), Err(CUresult::CUDA_ERROR_INVALID_HANDLE));
        let counter = allocate(8).unwrap();
        cu!(cuMemsetD8_v2(counter, 0, 8)).unwrap();
        for _ in 0..3 {
            launch(function(module, c"spin"), 1, NULL, [param(&counter)]).unwrap();
        }
        assert_eq!(download::<u64>(counter, 1).unwrap(), [3]);
    });
}

#[test]
fn what_cannot_be_linked_is_refused_with_a_reason() {
    in_child("what_cannot_be_linked_is_refused_with_a_reason", "{}", || {
        context();
        let mut options = [
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        let mut log = [0_u8; 256];
        let mut values = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut::<c_void>(log.len())];
        let state = link(2, options.as_mut_ptr(), values.as_mut_ptr());
        let bad = c".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() { frobnicate.u32 %r1; ret; }\n";
        assert_eq!(add(state, PTX, bad), Err(CUresult::CUDA_ERROR_INVALID_PTX));
        let said = CStr::from_bytes_until_nul(&log).unwrap().to_str().unwrap();
        assert!(said.contains("line 4"), "{said}");
        let spin = CString::new(SPIN).unwrap();
        let cubin = sys::CUjitInputType::CU_JIT_INPUT_CUBIN;
        assert_eq!(add(state, cubin, &spin), Err(CUresult::CUDA_ERROR_NOT_SUPPORTED));
        add(state, PTX, &spin).unwrap();
        assert_eq!(add(state, PTX, &spin), Err(CUresult::CUDA_ERROR_NOT_SUPPORTED), "two texts");
        cu!(cuLinkDestroy(state)).unwrap();
    });
}

#[test]
fn kernels_answer_for_their_functions() {
    in_child("kernels_answer_for_their_functions", "{}", || {
        context();
        let text = CString::new(CONSTANT).unwrap();
        let (none, nothing) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (mut library, mut module) = (std::ptr::null_mut(), std::ptr::null_mut());
        let image = text.as_ptr().cast();
        cu!(cuLibraryLoadData(&mut library, image, none, nothing, 0, std::ptr::null_mut(), nothing, 0))
            .unwrap();
        cu!(cuModuleLoadData(&mut module, image)).unwrap();
        let name = CString::new(first_kernel(CONSTANT)).unwrap();
        let (mut kernel, mut owner) = (std::ptr::null_mut(), std::ptr::null_mut());
        cu!(cuLibraryGetKernel(&mut kernel, library, name.as_ptr())).unwrap();
        cu!(cuKernelGetLibrary(&mut owner, kernel)).unwrap();
        assert_eq!(owner, library);
        let mut said = std::ptr::null();
        cu!(cuKernelGetName(&mut said, kernel)).unwrap();
        // SAFETY: the driver's terminated text, which lives as long as the library.
        assert_eq!(unsafe { CStr::from_ptr(said) }, name.as_c_str());
        let function = function(module, &name);
        for attribute in [
            sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK,
            sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES,
            sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS,
        ] {
            let (mut by_kernel, mut by_function) = (-1, -2);
            cu!(cuKernelGetAttribute(&mut by_kernel, attribute, kernel, 0)).unwrap();
            cu!(cuFuncGetAttribute(&mut by_function, attribute, function)).unwrap();
            assert_eq!(by_kernel, by_function, "{attribute:?}");
            let nowhere = cu!(cuKernelGetAttribute(&mut by_kernel, attribute, kernel, 7));
            assert_eq!(nowhere, Err(CUresult::CUDA_ERROR_INVALID_DEVICE));
        }
        let mut value = 0;
        let shared = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        cu!(cuKernelSetAttribute(shared, 65_536, kernel, 0)).unwrap();
        cu!(cuKernelGetAttribute(&mut value, shared, kernel, 0)).unwrap();
        assert_eq!(value, 65_536);
        let wrong = cu!(cuKernelGetAttribute(&mut value, shared, function.cast(), 0));
        assert_eq!(wrong, Err(CUresult::CUDA_ERROR_INVALID_HANDLE), "a function is no kernel");
    });
}

/// The name behind the first `.entry` of a text.
fn first_kernel(ptx: &str) -> &str {
    let rest = ptx.split_once(".entry ").unwrap().1;
    rest.split('(').next().unwrap().trim()
}

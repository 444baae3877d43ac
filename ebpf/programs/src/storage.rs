//! Storage that the kernel ties to a thread or a socket: no table that can fill up, nothing to clean.
//!
//! `aya-ebpf` has neither map in the shape needed here (task storage not at all, socket storage for another context only), so the two
//! definitions are spelled out. Field order and names are the BTF map definition format; the loader reads the types.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{
        BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
        bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE, bpf_sock,
    },
    helpers::generated::{bpf_get_current_task_btf, bpf_sk_storage_get, bpf_task_storage_get},
};

macro_rules! storage {
    ($(#[$doc:meta])* $name:ident, $map_type:ident) => {
        $(#[$doc])*
        #[repr(C)]
        pub struct $name<T> {
            r#type: *const [i32; $map_type as usize],
            key: *const i32,
            value: *const T,
            max_entries: *const [i32; 0],
            map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
        }

        // SAFETY: the fields describe the map's types and are never read; the kernel synchronises the map itself.
        unsafe impl<T> Sync for $name<T> {}

        impl<T> $name<T> {
            /// The definition that the loader turns into a map.
            #[allow(clippy::new_without_default, reason = "used in statics only")]
            pub const fn new() -> Self {
                Self {
                    r#type: ptr::null(),
                    key: ptr::null(),
                    value: ptr::null(),
                    max_entries: ptr::null(),
                    map_flags: ptr::null(),
                }
            }

            #[inline(always)]
            fn as_ptr(&self) -> *mut c_void {
                ptr::from_ref(self).cast_mut().cast()
            }
        }
    };
}

storage!(
    /// One `T` per thread.
    TaskStorage,
    BPF_MAP_TYPE_TASK_STORAGE
);
storage!(
    /// One `T` per socket.
    SocketStorage,
    BPF_MAP_TYPE_SK_STORAGE
);

impl<T> TaskStorage<T> {
    /// The current thread's record if it has one, else null.
    #[inline(always)]
    pub fn of_current(&self) -> *mut T {
        self.get(0)
    }

    /// The current thread's record, made of zeros if it had none. Null if the kernel has no memory for it.
    #[inline(always)]
    pub fn of_current_or_new(&self) -> *mut T {
        self.get(u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE))
    }

    #[inline(always)]
    fn get(&self, flags: u64) -> *mut T {
        // SAFETY: the helper takes nothing and answers the current task, which is never null.
        let task = unsafe { bpf_get_current_task_btf() };
        // SAFETY: the task is the one just asked for; a null value means zeros.
        unsafe { bpf_task_storage_get(self.as_ptr(), task, ptr::null_mut(), flags) }.cast()
    }
}

impl<T> SocketStorage<T> {
    /// The socket's record, made of zeros if it had none. Null if the kernel has no memory for it.
    ///
    /// # Safety
    /// `socket` is the non-null socket of the running program's context.
    #[inline(always)]
    pub unsafe fn of_or_new(&self, socket: *mut bpf_sock) -> *mut T {
        let flags = u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE);
        // SAFETY: the socket is the caller's promise; a null value means zeros.
        unsafe { bpf_sk_storage_get(self.as_ptr(), socket.cast(), ptr::null_mut(), flags) }.cast()
    }
}

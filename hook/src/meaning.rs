//! What each hooked call means: which function of [`crate::intercept`] judges it. One line a row of the table; the shells in
//! [`crate::exports`] are made of it.

/// The meaning of each hooked call, by name. A hooked row without a line here counts as one that looks at the device;
/// if it is of a family that does more (`only_observed` in [`crate::exports`]), the library is not built.
macro_rules! meaning {
    (cuInit, $flags:ident) => {
        context::init()
    };

    (cuDeviceTotalMem, $bytes:ident, $dev:ident) => {
        view::total_memory(Out($bytes), $dev)
    };
    (cuDeviceTotalMem_v2, $bytes:ident, $dev:ident) => {
        view::total_memory(Out($bytes), $dev)
    };
    (cuMemGetInfo, $free:ident, $total:ident) => {
        view::memory_info(Out($free), Out($total))
    };
    (cuMemGetInfo_v2, $free:ident, $total:ident) => {
        view::memory_info(Out($free), Out($total))
    };

    (cuMemAlloc, $dptr:ident, $bytes:ident) => {
        memory::allocate(Out($dptr), $bytes)
    };
    (cuMemAlloc_v2, $dptr:ident, $bytes:ident) => {
        memory::allocate(Out($dptr), $bytes)
    };
    (cuMemAllocManaged, $dptr:ident, $bytes:ident, $flags:ident) => {
        memory::allocate(Out($dptr), $bytes)
    };
    (cuMemAllocPitch, $dptr:ident, $pitch:ident, $width:ident, $height:ident, $e:ident) => {
        memory::allocate_pitch(Out($dptr), Out($pitch), $width, $height)
    };
    (cuMemAllocPitch_v2, $dptr:ident, $pitch:ident, $width:ident, $height:ident, $e:ident) => {
        memory::allocate_pitch(Out($dptr), Out($pitch), $width, $height)
    };
    (cuMemAllocAsync, $dptr:ident, $bytes:ident, $s:ident) => {
        memory::allocate_async(Out($dptr), $bytes, None, $s, false)
    };
    (cuMemAllocAsync_ptsz, $dptr:ident, $bytes:ident, $s:ident) => {
        memory::allocate_async(Out($dptr), $bytes, None, $s, true)
    };
    (cuMemAllocFromPoolAsync, $dptr:ident, $bytes:ident, $pool:ident, $s:ident) => {
        memory::allocate_async(Out($dptr), $bytes, Some($pool), $s, false)
    };
    (cuMemAllocFromPoolAsync_ptsz, $dptr:ident, $bytes:ident, $pool:ident, $s:ident) => {
        memory::allocate_async(Out($dptr), $bytes, Some($pool), $s, true)
    };
    (cuMemFree, $dptr:ident) => {
        memory::free($dptr)
    };
    (cuMemFree_v2, $dptr:ident) => {
        memory::free($dptr)
    };
    (cuMemFreeAsync, $dptr:ident, $s:ident) => {
        memory::free_async($dptr)
    };
    (cuMemFreeAsync_ptsz, $dptr:ident, $s:ident) => {
        memory::free_async($dptr)
    };

    (cuMemPoolCreate, $pool:ident, $props:ident) => {
        pool::create(Out($pool), driver::argument($props))
    };
    (cuMemPoolDestroy, $pool:ident) => {
        pool::destroy($pool)
    };
    (cuMemPoolTrimTo, $($a:ident),*) => {
        pool::shrink()
    };
    (cuMemPoolSetAttribute, $($a:ident),*) => {
        pool::shrink()
    };
    (cuDeviceGraphMemTrim, $device:ident) => {
        pool::trim_graphs($device)
    };

    (cuMemCreate, $handle:ident, $size:ident, $props:ident, $flags:ident) => {
        physical::create(Out($handle), $size, driver::argument($props))
    };
    (cuMemRelease, $handle:ident) => {
        physical::release($handle)
    };
    (cuMemMap, $ptr:ident, $size:ident, $offset:ident, $handle:ident, $flags:ident) => {
        physical::map($ptr, $size, $handle)
    };
    (cuMemUnmap, $ptr:ident, $size:ident) => {
        physical::unmap($ptr, $size)
    };
    (cuMemRetainAllocationHandle, $handle:ident, $addr:ident) => {
        physical::retain(Out($handle), $addr.addr() as u64)
    };
    (cuMemExportToShareableHandle, $out:ident, $handle:ident, $kind:ident, $flags:ident) => {
        physical::export($out.cast_const().cast(), $handle, $kind)
    };
    (cuMemImportFromShareableHandle, $handle:ident, $shared:ident, $kind:ident) => {
        physical::import(Out($handle), $shared.cast_const().cast(), $kind)
    };
    (cuMemMapArrayAsync, $infos:ident, $count:ident, $s:ident) => {
        physical::map_tiles(driver::arguments($infos.cast_const().cast(), $count as usize))
    };
    (cuMemMapArrayAsync_ptsz, $infos:ident, $count:ident, $s:ident) => {
        physical::map_tiles(driver::arguments($infos.cast_const().cast(), $count as usize))
    };

    (cuMulticastCreate, $object:ident, $props:ident) => {
        physical::create_multicast(Out($object))
    };
    (cuMulticastBindMem, $object:ident, $offset:ident, $handle:ident, $from:ident, $size:ident, $flags:ident) => {
        physical::bind($object, None, $offset as u64, $handle, $size as u64)
    };
    (cuMulticastBindMem_v2, $object:ident, $dev:ident, $offset:ident, $handle:ident, $from:ident, $size:ident, $flags:ident) => {
        physical::bind($object, Some($dev), $offset as u64, $handle, $size as u64)
    };
    (cuMulticastBindAddr, $object:ident, $offset:ident, $ptr:ident, $size:ident, $flags:ident) => {
        physical::bind_address($object, None, $offset as u64, $ptr, $size as u64)
    };
    (cuMulticastBindAddr_v2, $object:ident, $dev:ident, $offset:ident, $ptr:ident, $size:ident, $flags:ident) => {
        physical::bind_address($object, Some($dev), $offset as u64, $ptr, $size as u64)
    };
    (cuMulticastUnbind, $object:ident, $dev:ident, $offset:ident, $size:ident) => {
        physical::unbind($object, $dev, $offset as u64, $size as u64)
    };
    (cuLogicalEndpointCreate, $id:ident, $props:ident) => {
        physical::create_endpoint($id)
    };
    (cuLogicalEndpointDestroy, $id:ident) => {
        physical::release(physical::endpoint($id))
    };
    (cuLogicalEndpointBindMem, $id:ident, $dev:ident, $offset:ident, $handle:ident, $from:ident, $size:ident, $flags:ident) => {
        physical::bind(physical::endpoint($id), Some($dev), $offset, $handle, $size)
    };
    (cuLogicalEndpointBindAddr, $id:ident, $dev:ident, $offset:ident, $ptr:ident, $size:ident, $flags:ident) => {
        physical::bind_address(physical::endpoint($id), Some($dev), $offset, $ptr.addr() as u64, $size)
    };
    (cuLogicalEndpointUnbind, $id:ident, $dev:ident, $offset:ident, $size:ident) => {
        physical::unbind(physical::endpoint($id), $dev, $offset, $size)
    };

    (cuArrayCreate, $array:ident, $shape:ident) => {
        array::create(Out($array), driver::argument($shape))
    };
    (cuArrayCreate_v2, $array:ident, $shape:ident) => {
        array::create(Out($array), driver::argument($shape))
    };
    (cuArray3DCreate, $array:ident, $shape:ident) => {
        array::create(Out($array), driver::argument($shape))
    };
    (cuArray3DCreate_v2, $array:ident, $shape:ident) => {
        array::create(Out($array), driver::argument($shape))
    };
    (cuMipmappedArrayCreate, $array:ident, $shape:ident, $levels:ident) => {
        array::create_mipmap(Out($array), driver::argument($shape), $levels)
    };
    (cuArrayDestroy, $array:ident) => {
        array::destroy($array.addr())
    };
    (cuMipmappedArrayDestroy, $array:ident) => {
        array::destroy($array.addr())
    };

    (cuGraphAddMemAllocNode, $($a:ident),*) => {
        graph::add_allocation()
    };
    (cuGraphAddNode, $node:ident, $graph:ident, $on:ident, $count:ident, $params:ident) => {
        graph::add_node(driver::argument($params))
    };
    (cuGraphAddNode_v2, $node:ident, $graph:ident, $on:ident, $data:ident, $count:ident, $params:ident) => {
        graph::add_node(driver::argument($params))
    };
    (cuGraphAddNode_v3, $node:ident, $graph:ident, $on:ident, $data:ident, $count:ident, $params:ident) => {
        graph::add_node(driver::argument($params))
    };
    (cuGraphInstantiate, $exec:ident, $graph:ident, $($a:ident),*) => {
        graph::instantiate(Out($exec), $graph, 0)
    };
    (cuGraphInstantiate_v2, $exec:ident, $graph:ident, $($a:ident),*) => {
        graph::instantiate(Out($exec), $graph, 0)
    };
    (cuGraphInstantiateWithFlags, $exec:ident, $graph:ident, $flags:ident) => {
        graph::instantiate(Out($exec), $graph, $flags)
    };
    (cuGraphInstantiateWithParams, $exec:ident, $graph:ident, $params:ident) => {
        graph::instantiate(Out($exec), $graph, driver::argument($params).map_or(0, |params| params.flags))
    };
    (cuGraphInstantiateWithParams_ptsz, $exec:ident, $graph:ident, $params:ident) => {
        graph::instantiate(Out($exec), $graph, driver::argument($params).map_or(0, |params| params.flags))
    };
    (cuGraphUpload, $exec:ident, $s:ident) => {
        graph::upload($exec)
    };
    (cuGraphUpload_ptsz, $exec:ident, $s:ident) => {
        graph::upload($exec)
    };
    (cuGraphLaunch, $exec:ident, $s:ident) => {
        graph::launch($exec, $s, false)
    };
    (cuGraphLaunch_ptsz, $exec:ident, $s:ident) => {
        graph::launch($exec, $s, true)
    };
    (cuGraphExecUpdate, $exec:ident, $graph:ident, $($a:ident),*) => {
        graph::update($exec, $graph)
    };
    (cuGraphExecUpdate_v2, $exec:ident, $graph:ident, $result:ident) => {
        graph::update($exec, $graph)
    };
    (cuGraphExecDestroy, $exec:ident) => {
        graph::destroy($exec)
    };

    (cuCtxCreate, $ctx:ident, $flags:ident, $dev:ident) => {
        context::create($dev)
    };
    (cuCtxAttach, $ctx:ident, $flags:ident) => {
        context::attach(Out($ctx))
    };
    (cuGLCtxCreate, $ctx:ident, $flags:ident, $dev:ident) => {
        context::create($dev)
    };
    (cuGLCtxCreate_v2, $ctx:ident, $flags:ident, $dev:ident) => {
        context::create($dev)
    };
    (cuVDPAUCtxCreate, $ctx:ident, $flags:ident, $dev:ident, $($a:ident),*) => {
        context::create($dev)
    };
    (cuVDPAUCtxCreate_v2, $ctx:ident, $flags:ident, $dev:ident, $($a:ident),*) => {
        context::create($dev)
    };
    (cuCtxDestroy, $ctx:ident) => {
        context::destroy($ctx)
    };
    (cuCtxDetach, $ctx:ident) => {
        context::detach($ctx)
    };
    (cuCtxPushCurrent, $ctx:ident) => {
        context::enter(true)
    };
    (cuCtxPopCurrent, $ctx:ident) => {
        context::leave(Out($ctx))
    };
    (cuCtxSetLimit, $($a:ident),*) => {
        context::load()
    };
    (cuModuleLoad, $($a:ident),*) => {
        context::load()
    };
    (cuModuleLoadData, $($a:ident),*) => {
        context::load()
    };
    (cuModuleLoadDataEx, $($a:ident),*) => {
        context::load()
    };
    (cuModuleLoadFatBinary, $($a:ident),*) => {
        context::load()
    };
    (cuLibraryLoadData, $($a:ident),*) => {
        context::load()
    };
    (cuLibraryLoadFromFile, $($a:ident),*) => {
        context::load()
    };

    (cuCtxSynchronize) => {
        groups::synchronise()
    };
    (cuCtxSynchronize_v2, $ctx:ident) => {
        launch::synchronise()
    };
    (cuStreamSynchronize, $s:ident) => {
        launch::synchronise()
    };
    (cuStreamSynchronize_ptsz, $s:ident) => {
        launch::synchronise()
    };
    (cuEventSynchronize, $e:ident) => {
        launch::synchronise()
    };

    (cuCheckpointProcessLock, $pid:ident, $args:ident) => {
        checkpoint::lock($pid)
    };
    (cuCheckpointProcessCheckpoint, $pid:ident, $args:ident) => {
        checkpoint::checkpoint($pid)
    };
    (cuCheckpointProcessRestore, $pid:ident, $args:ident) => {
        checkpoint::restore($pid)
    };

    (cuDevicePrimaryCtxRetain, $ctx:ident, $dev:ident) => {
        context::retain($dev)
    };
    (cuCtxCreate_v2, $ctx:ident, $flags:ident, $dev:ident) => {
        context::create($dev)
    };
    (cuCtxCreate_v3, $ctx:ident, $affinity:ident, $count:ident, $flags:ident, $dev:ident) => {
        context::create($dev)
    };
    (cuCtxCreate_v4, $ctx:ident, $params:ident, $flags:ident, $dev:ident) => {
        context::create($dev)
    };
    (cuCtxDestroy_v2, $ctx:ident) => {
        context::destroy($ctx)
    };
    (cuDevicePrimaryCtxRelease, $dev:ident) => {
        context::release_primary($dev)
    };
    (cuDevicePrimaryCtxRelease_v2, $dev:ident) => {
        context::release_primary($dev)
    };
    (cuDevicePrimaryCtxReset, $dev:ident) => {
        context::reset_primary($dev)
    };
    (cuDevicePrimaryCtxReset_v2, $dev:ident) => {
        context::reset_primary($dev)
    };
    (cuCtxPushCurrent_v2, $ctx:ident) => {
        context::enter(true)
    };
    (cuCtxPopCurrent_v2, $ctx:ident) => {
        context::leave(Out($ctx))
    };
    (cuCtxSetCurrent, $ctx:ident) => {
        context::enter(false)
    };
    (cuCtxGetCurrent, $ctx:ident) => {
        groups::context(Out($ctx))
    };
    (cuStreamGetCtx, $s:ident, $ctx:ident) => {
        groups::context(Out($ctx))
    };
    (cuStreamGetCtx_ptsz, $s:ident, $ctx:ident) => {
        groups::context(Out($ctx))
    };
    (cuStreamGetCtx_v2, $s:ident, $ctx:ident, $green:ident) => {
        groups::contexts(Out($ctx), Out($green))
    };
    (cuStreamGetCtx_v2_ptsz, $s:ident, $ctx:ident, $green:ident) => {
        groups::contexts(Out($ctx), Out($green))
    };
    (cuStreamGetGreenCtx, $s:ident, $green:ident) => {
        groups::contexts(Out(std::ptr::null_mut()), Out($green))
    };
    (cuDeviceGetDevResource, $dev:ident, $resource:ident, $kind:ident) => {
        groups::of_device($dev, $kind, Out($resource.cast()))
    };
    (cuCtxGetDevResource, $ctx:ident, $resource:ident, $kind:ident) => {
        groups::of_context($ctx, $kind, Out($resource.cast()))
    };
    (cuGreenCtxCreate, $green:ident, $desc:ident, $dev:ident, $flags:ident) => {
        groups::create(Out($green), $dev)
    };
    (cuStreamDestroy, $s:ident) => {
        context::destroy_stream($s)
    };
    (cuStreamDestroy_v2, $s:ident) => {
        context::destroy_stream($s)
    };

    (cuLaunchKernel, $f:ident, $gx:ident, $gy:ident, $gz:ident, $bx:ident, $by:ident, $bz:ident, $m:ident, $s:ident, $($a:ident),*) => {
        launch::launch($s, false)
    };
    (cuLaunchKernel_ptsz, $f:ident, $gx:ident, $gy:ident, $gz:ident, $bx:ident, $by:ident, $bz:ident, $m:ident, $s:ident, $($a:ident),*) => {
        launch::launch($s, true)
    };
    (cuLaunchCooperativeKernel, $f:ident, $gx:ident, $gy:ident, $gz:ident, $bx:ident, $by:ident, $bz:ident, $m:ident, $s:ident, $p:ident) => {
        launch::launch($s, false)
    };
    (cuLaunchCooperativeKernel_ptsz, $f:ident, $gx:ident, $gy:ident, $gz:ident, $bx:ident, $by:ident, $bz:ident, $m:ident, $s:ident, $p:ident) => {
        launch::launch($s, true)
    };
    (cuLaunchKernelEx, $config:ident, $($a:ident),*) => {
        launch::launch_extended(config_stream($config), false, driver::overlaps_predecessor($config))
    };
    (cuLaunchKernelEx_ptsz, $config:ident, $($a:ident),*) => {
        launch::launch_extended(config_stream($config), true, driver::overlaps_predecessor($config))
    };

    (cuLaunchCooperativeKernelMultiDevice, $list:ident, $count:ident, $flags:ident) => {
        launch::launch_on_many(driver::arguments($list.cast_const(), $count as usize))
    };
    // The oldest forms have no stream, and mean the default one.
    (cuLaunch, $f:ident) => {
        launch::launch(CUstream::NULL, false)
    };
    (cuLaunchGrid, $f:ident, $w:ident, $h:ident) => {
        launch::launch(CUstream::NULL, false)
    };
    (cuLaunchGridAsync, $f:ident, $w:ident, $h:ident, $s:ident) => {
        launch::launch($s, false)
    };

    ($name:ident $(, $a:ident)*) => {{
        const _: () = assert!(
            only_observed(Symbol::$name.row().family),
            concat!(
                "`meaning!` needs a line for ",
                stringify!($name),
                ": calls of its family do more than wait"
            )
        );
        launch::observe::<{ matches!(Symbol::$name.row().family, Family::SynchronousCopy) }>()
    }};
}

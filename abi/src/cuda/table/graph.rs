//! Rows of the table: graphs.

#[doc(hidden)]
#[macro_export]
macro_rules! cuda_rows_graph {
    ([$visit:path] [$($context:tt)*] $($before:tt)*) => {
        $crate::cuda_rows_texture! { [$visit] [$($context)*] $($before)*
            // Graphs under construction.
            cuGraphCreate (graph: *mut CUgraph, flags: c_uint) ["cuGraphCreate", 10000, Base, Graph, passed];
            cuGraphAddKernelNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, node_params: *const CUDA_KERNEL_NODE_PARAMS_v1) ["cuGraphAddKernelNode", 10000, Base, Graph, passed];
            cuGraphAddKernelNode_v2 (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, node_params: *const CUDA_KERNEL_NODE_PARAMS) ["cuGraphAddKernelNode", 12000, Base, Graph, passed];
            cuGraphKernelNodeSetParams (node: CUgraphNode, node_params: *const CUDA_KERNEL_NODE_PARAMS_v1) ["cuGraphKernelNodeSetParams", 10000, Base, Graph, passed];
            cuGraphKernelNodeSetParams_v2 (node: CUgraphNode, node_params: *const CUDA_KERNEL_NODE_PARAMS) ["cuGraphKernelNodeSetParams", 12000, Base, Graph, passed];
            cuGraphAddMemcpyNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, copy_params: *const CUDA_MEMCPY3D, ctx: CUcontext) ["cuGraphAddMemcpyNode", 10000, Base, Graph, passed];
            cuGraphMemcpyNodeSetParams (node: CUgraphNode, node_params: *const CUDA_MEMCPY3D) ["cuGraphMemcpyNodeSetParams", 10000, Base, Graph, passed];
            cuGraphAddMemsetNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, memset_params: *const CUDA_MEMSET_NODE_PARAMS, ctx: CUcontext) ["cuGraphAddMemsetNode", 10000, Base, Graph, passed];
            cuGraphMemsetNodeSetParams (node: CUgraphNode, node_params: *const CUDA_MEMSET_NODE_PARAMS) ["cuGraphMemsetNodeSetParams", 10000, Base, Graph, passed];
            cuGraphAddHostNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, node_params: *const CUDA_HOST_NODE_PARAMS) ["cuGraphAddHostNode", 10000, Base, Graph, passed];
            cuGraphHostNodeSetParams (node: CUgraphNode, node_params: *const CUDA_HOST_NODE_PARAMS) ["cuGraphHostNodeSetParams", 10000, Base, Graph, passed];
            cuGraphAddChildGraphNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, child_graph: CUgraph) ["cuGraphAddChildGraphNode", 10000, Base, Graph, passed];
            cuGraphChildGraphNodeGetGraph (node: CUgraphNode, graph: *mut CUgraph) ["cuGraphChildGraphNodeGetGraph", 10000, Base, Graph, passed];
            cuGraphAddEmptyNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize) ["cuGraphAddEmptyNode", 10000, Base, Graph, passed];
            cuGraphAddEventRecordNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, event: CUevent) ["cuGraphAddEventRecordNode", 11010, Base, Graph, passed];
            cuGraphEventRecordNodeSetEvent (node: CUgraphNode, event: CUevent) ["cuGraphEventRecordNodeSetEvent", 11010, Base, Graph, passed];
            cuGraphAddEventWaitNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, event: CUevent) ["cuGraphAddEventWaitNode", 11010, Base, Graph, passed];
            cuGraphEventWaitNodeSetEvent (node: CUgraphNode, event: CUevent) ["cuGraphEventWaitNodeSetEvent", 11010, Base, Graph, passed];
            cuGraphAddExternalSemaphoresSignalNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, node_params: *const c_void) ["cuGraphAddExternalSemaphoresSignalNode", 11020, Base, Graph, passed];
            cuGraphExternalSemaphoresSignalNodeSetParams (node: CUgraphNode, node_params: *const c_void) ["cuGraphExternalSemaphoresSignalNodeSetParams", 11020, Base, Graph, passed];
            cuGraphAddExternalSemaphoresWaitNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, node_params: *const c_void) ["cuGraphAddExternalSemaphoresWaitNode", 11020, Base, Graph, passed];
            cuGraphExternalSemaphoresWaitNodeSetParams (node: CUgraphNode, node_params: *const c_void) ["cuGraphExternalSemaphoresWaitNodeSetParams", 11020, Base, Graph, passed];
            cuGraphAddBatchMemOpNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, node_params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS) ["cuGraphAddBatchMemOpNode", 11070, Base, Graph, passed];
            cuGraphBatchMemOpNodeSetParams (node: CUgraphNode, node_params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS) ["cuGraphBatchMemOpNodeSetParams", 11070, Base, Graph, passed];
            cuGraphExecBatchMemOpNodeSetParams (exec: CUgraphExec, node: CUgraphNode, node_params: *const CUDA_BATCH_MEM_OP_NODE_PARAMS) ["cuGraphExecBatchMemOpNodeSetParams", 11070, Base, Graph, passed];
            cuGraphAddMemFreeNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, dptr: CUdeviceptr) ["cuGraphAddMemFreeNode", 11040, Base, Graph, passed];
            cuGraphClone (ph_graph_clone: *mut CUgraph, original_graph: CUgraph) ["cuGraphClone", 10000, Base, Graph, passed];
            cuGraphAddDependencies (graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, num_dependencies: usize) ["cuGraphAddDependencies", 10000, Base, Graph, passed];
            cuGraphAddDependencies_v2 (graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, edge_data: *const CUgraphEdgeData, num_dependencies: usize) ["cuGraphAddDependencies", 12030, Base, Graph, passed];
            cuGraphRemoveDependencies (graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, num_dependencies: usize) ["cuGraphRemoveDependencies", 10000, Base, Graph, passed];
            cuGraphRemoveDependencies_v2 (graph: CUgraph, from: *const CUgraphNode, to: *const CUgraphNode, edge_data: *const CUgraphEdgeData, num_dependencies: usize) ["cuGraphRemoveDependencies", 12030, Base, Graph, passed];
            cuGraphDestroyNode (node: CUgraphNode) ["cuGraphDestroyNode", 10000, Base, Graph, passed];
            cuGraphExecKernelNodeSetParams (exec: CUgraphExec, node: CUgraphNode, node_params: *const CUDA_KERNEL_NODE_PARAMS_v1) ["cuGraphExecKernelNodeSetParams", 10010, Base, Graph, passed];
            cuGraphExecKernelNodeSetParams_v2 (exec: CUgraphExec, node: CUgraphNode, node_params: *const CUDA_KERNEL_NODE_PARAMS) ["cuGraphExecKernelNodeSetParams", 12000, Base, Graph, passed];
            cuGraphExecMemcpyNodeSetParams (exec: CUgraphExec, node: CUgraphNode, copy_params: *const CUDA_MEMCPY3D, ctx: CUcontext) ["cuGraphExecMemcpyNodeSetParams", 10020, Base, Graph, passed];
            cuGraphExecMemsetNodeSetParams (exec: CUgraphExec, node: CUgraphNode, memset_params: *const CUDA_MEMSET_NODE_PARAMS, ctx: CUcontext) ["cuGraphExecMemsetNodeSetParams", 10020, Base, Graph, passed];
            cuGraphExecHostNodeSetParams (exec: CUgraphExec, node: CUgraphNode, node_params: *const CUDA_HOST_NODE_PARAMS) ["cuGraphExecHostNodeSetParams", 10020, Base, Graph, passed];
            cuGraphExecChildGraphNodeSetParams (exec: CUgraphExec, node: CUgraphNode, child_graph: CUgraph) ["cuGraphExecChildGraphNodeSetParams", 11010, Base, Graph, passed];
            cuGraphExecEventRecordNodeSetEvent (exec: CUgraphExec, node: CUgraphNode, event: CUevent) ["cuGraphExecEventRecordNodeSetEvent", 11010, Base, Graph, passed];
            cuGraphExecEventWaitNodeSetEvent (exec: CUgraphExec, node: CUgraphNode, event: CUevent) ["cuGraphExecEventWaitNodeSetEvent", 11010, Base, Graph, passed];
            cuGraphExecExternalSemaphoresSignalNodeSetParams (exec: CUgraphExec, node: CUgraphNode, node_params: *const c_void) ["cuGraphExecExternalSemaphoresSignalNodeSetParams", 11020, Base, Graph, passed];
            cuGraphExecExternalSemaphoresWaitNodeSetParams (exec: CUgraphExec, node: CUgraphNode, node_params: *const c_void) ["cuGraphExecExternalSemaphoresWaitNodeSetParams", 11020, Base, Graph, passed];
            cuGraphNodeSetEnabled (exec: CUgraphExec, node: CUgraphNode, is_enabled: c_uint) ["cuGraphNodeSetEnabled", 11060, Base, Graph, passed];
            cuGraphKernelNodeCopyAttributes (dst: CUgraphNode, src: CUgraphNode) ["cuGraphKernelNodeCopyAttributes", 11000, Base, Graph, passed];
            cuGraphKernelNodeSetAttribute (node: CUgraphNode, attr: CUenum, value: *const c_void) ["cuGraphKernelNodeSetAttribute", 11000, Base, Graph, passed];
            cuUserObjectCreate (object_out: *mut CUuserObject, ptr: *mut c_void, destroy: *mut c_void, initial_refcount: c_uint, flags: c_uint) ["cuUserObjectCreate", 11030, Base, Graph, passed];
            cuUserObjectRetain (object: CUuserObject, count: c_uint) ["cuUserObjectRetain", 11030, Base, Graph, passed];
            cuUserObjectRelease (object: CUuserObject, count: c_uint) ["cuUserObjectRelease", 11030, Base, Graph, passed];
            cuGraphRetainUserObject (graph: CUgraph, object: CUuserObject, count: c_uint, flags: c_uint) ["cuGraphRetainUserObject", 11030, Base, Graph, passed];
            cuGraphReleaseUserObject (graph: CUgraph, object: CUuserObject, count: c_uint) ["cuGraphReleaseUserObject", 11030, Base, Graph, passed];
            cuGraphNodeSetParams (node: CUgraphNode, node_params: *mut CUgraphNodeParams) ["cuGraphNodeSetParams", 12020, Base, Graph, passed];
            cuGraphNodeSetParams_v2 (node: CUgraphNode, node_params: *mut CUgraphNodeParams) ["cuGraphNodeSetParams", 13040, Base, Graph, passed];
            cuGraphExecNodeSetParams (exec: CUgraphExec, node: CUgraphNode, node_params: *mut CUgraphNodeParams) ["cuGraphExecNodeSetParams", 12020, Base, Graph, passed];
            cuGraphConditionalHandleCreate (p_handle_out: *mut u64, graph: CUgraph, ctx: CUcontext, default_launch_value: c_uint, flags: c_uint) ["cuGraphConditionalHandleCreate", 12030, Base, Graph, passed];

            // Nodes that take memory.
            cuGraphAddMemAllocNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, node_params: *mut CUDA_MEM_ALLOC_NODE_PARAMS) ["cuGraphAddMemAllocNode", 11040, Base, GraphMemory, hooked];
            cuGraphAddNode (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, num_dependencies: usize, node_params: *mut CUgraphNodeParams) ["cuGraphAddNode", 12020, Base, GraphMemory, hooked];
            cuGraphAddNode_v2 (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, dependency_data: *const CUgraphEdgeData, num_dependencies: usize, node_params: *mut CUgraphNodeParams) ["cuGraphAddNode", 12030, Base, GraphMemory, hooked];
            cuGraphAddNode_v3 (node: *mut CUgraphNode, graph: CUgraph, dependencies: *const CUgraphNode, dependency_data: *const CUgraphEdgeData, num_dependencies: usize, node_params: *mut CUgraphNodeParams) ["cuGraphAddNode", 13040, Base, GraphMemory, hooked];

            // Questions.
            cuGraphKernelNodeGetParams (node: CUgraphNode, node_params: *mut CUDA_KERNEL_NODE_PARAMS_v1) ["cuGraphKernelNodeGetParams", 10000, Base, Query, passed];
            cuGraphKernelNodeGetParams_v2 (node: CUgraphNode, node_params: *mut CUDA_KERNEL_NODE_PARAMS) ["cuGraphKernelNodeGetParams", 12000, Base, Query, passed];
            cuGraphMemcpyNodeGetParams (node: CUgraphNode, node_params: *mut CUDA_MEMCPY3D) ["cuGraphMemcpyNodeGetParams", 10000, Base, Query, passed];
            cuGraphMemsetNodeGetParams (node: CUgraphNode, node_params: *mut CUDA_MEMSET_NODE_PARAMS) ["cuGraphMemsetNodeGetParams", 10000, Base, Query, passed];
            cuGraphHostNodeGetParams (node: CUgraphNode, node_params: *mut CUDA_HOST_NODE_PARAMS) ["cuGraphHostNodeGetParams", 10000, Base, Query, passed];
            cuGraphEventRecordNodeGetEvent (node: CUgraphNode, event_out: *mut CUevent) ["cuGraphEventRecordNodeGetEvent", 11010, Base, Query, passed];
            cuGraphEventWaitNodeGetEvent (node: CUgraphNode, event_out: *mut CUevent) ["cuGraphEventWaitNodeGetEvent", 11010, Base, Query, passed];
            cuGraphExternalSemaphoresSignalNodeGetParams (node: CUgraphNode, params_out: *mut c_void) ["cuGraphExternalSemaphoresSignalNodeGetParams", 11020, Base, Query, passed];
            cuGraphExternalSemaphoresWaitNodeGetParams (node: CUgraphNode, params_out: *mut c_void) ["cuGraphExternalSemaphoresWaitNodeGetParams", 11020, Base, Query, passed];
            cuGraphBatchMemOpNodeGetParams (node: CUgraphNode, node_params_out: *mut CUDA_BATCH_MEM_OP_NODE_PARAMS) ["cuGraphBatchMemOpNodeGetParams", 11070, Base, Query, passed];
            cuGraphMemAllocNodeGetParams (node: CUgraphNode, params_out: *mut CUDA_MEM_ALLOC_NODE_PARAMS) ["cuGraphMemAllocNodeGetParams", 11040, Base, Query, passed];
            cuGraphMemFreeNodeGetParams (node: CUgraphNode, dptr_out: *mut CUdeviceptr) ["cuGraphMemFreeNodeGetParams", 11040, Base, Query, passed];
            cuGraphNodeFindInClone (ph_node: *mut CUgraphNode, h_original_node: CUgraphNode, h_cloned_graph: CUgraph) ["cuGraphNodeFindInClone", 10000, Base, Query, passed];
            cuGraphNodeGetType (node: CUgraphNode, kind: *mut CUenum) ["cuGraphNodeGetType", 10000, Base, Query, passed];
            cuGraphNodeGetContainingGraph (node: CUgraphNode, graph: *mut CUgraph) ["cuGraphNodeGetContainingGraph", 13010, Base, Query, passed];
            cuGraphNodeGetLocalId (node: CUgraphNode, node_id: *mut c_uint) ["cuGraphNodeGetLocalId", 13010, Base, Query, passed];
            cuGraphNodeGetToolsId (node: CUgraphNode, tools_node_id: *mut u64) ["cuGraphNodeGetToolsId", 13010, Base, Query, passed];
            cuGraphGetId (graph: CUgraph, graph_id: *mut c_uint) ["cuGraphGetId", 13010, Base, Query, passed];
            cuGraphExecGetId (exec: CUgraphExec, graph_id: *mut c_uint) ["cuGraphExecGetId", 13010, Base, Query, passed];
            cuGraphGetNodes (graph: CUgraph, nodes: *mut CUgraphNode, num_nodes: *mut usize) ["cuGraphGetNodes", 10000, Base, Query, passed];
            cuGraphGetRootNodes (graph: CUgraph, root_nodes: *mut CUgraphNode, num_root_nodes: *mut usize) ["cuGraphGetRootNodes", 10000, Base, Query, passed];
            cuGraphGetEdges (graph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, num_edges: *mut usize) ["cuGraphGetEdges", 10000, Base, Query, passed];
            cuGraphGetEdges_v2 (graph: CUgraph, from: *mut CUgraphNode, to: *mut CUgraphNode, edge_data: *mut CUgraphEdgeData, num_edges: *mut usize) ["cuGraphGetEdges", 12030, Base, Query, passed];
            cuGraphNodeGetDependencies (node: CUgraphNode, dependencies: *mut CUgraphNode, num_dependencies: *mut usize) ["cuGraphNodeGetDependencies", 10000, Base, Query, passed];
            cuGraphNodeGetDependencies_v2 (node: CUgraphNode, dependencies: *mut CUgraphNode, edge_data: *mut CUgraphEdgeData, num_dependencies: *mut usize) ["cuGraphNodeGetDependencies", 12030, Base, Query, passed];
            cuGraphNodeGetDependentNodes (node: CUgraphNode, dependent_nodes: *mut CUgraphNode, num_dependent_nodes: *mut usize) ["cuGraphNodeGetDependentNodes", 10000, Base, Query, passed];
            cuGraphNodeGetDependentNodes_v2 (node: CUgraphNode, dependent_nodes: *mut CUgraphNode, edge_data: *mut CUgraphEdgeData, num_dependent_nodes: *mut usize) ["cuGraphNodeGetDependentNodes", 12030, Base, Query, passed];
            cuGraphExecGetFlags (exec: CUgraphExec, flags: *mut u64) ["cuGraphExecGetFlags", 12000, Base, Query, passed];
            cuGraphNodeGetEnabled (exec: CUgraphExec, node: CUgraphNode, is_enabled: *mut c_uint) ["cuGraphNodeGetEnabled", 11060, Base, Query, passed];
            cuGraphKernelNodeGetAttribute (node: CUgraphNode, attr: CUenum, value_out: *mut c_void) ["cuGraphKernelNodeGetAttribute", 11000, Base, Query, passed];
            cuGraphDebugDotPrint (graph: CUgraph, path: *const c_char, flags: c_uint) ["cuGraphDebugDotPrint", 11030, Base, Query, passed];
            cuGraphNodeGetParams (node: CUgraphNode, node_params: *mut CUgraphNodeParams) ["cuGraphNodeGetParams", 13020, Base, Query, passed];

            // Executable graphs.
            cuGraphInstantiateWithFlags (ph_graph_exec: *mut CUgraphExec, graph: CUgraph, flags: u64) ["cuGraphInstantiateWithFlags", 11040, Base, GraphReady, hooked];
            cuGraphInstantiateWithParams (ph_graph_exec: *mut CUgraphExec, graph: CUgraph, instantiate_params: *mut CUDA_GRAPH_INSTANTIATE_PARAMS) ["cuGraphInstantiateWithParams", 12000, Base, GraphReady, hooked];
            cuGraphInstantiateWithParams_ptsz (ph_graph_exec: *mut CUgraphExec, graph: CUgraph, instantiate_params: *mut CUDA_GRAPH_INSTANTIATE_PARAMS) ["cuGraphInstantiateWithParams", 12000, PerThread, GraphReady, hooked];
            cuGraphUpload (graph: CUgraphExec, stream: CUstream) ["cuGraphUpload", 11010, Base, GraphReady, hooked];
            cuGraphUpload_ptsz (exec: CUgraphExec, stream: CUstream) ["cuGraphUpload", 11010, PerThread, GraphReady, hooked];
            cuGraphExecUpdate (exec: CUgraphExec, graph: CUgraph, h_error_node_out: *mut CUgraphNode, update_result_out: *mut CUenum) ["cuGraphExecUpdate", 10020, Base, GraphReady, hooked];
            cuGraphExecUpdate_v2 (exec: CUgraphExec, graph: CUgraph, result_info: *mut CUgraphExecUpdateResultInfo) ["cuGraphExecUpdate", 12000, Base, GraphReady, hooked];
            cuGraphInstantiate (ph_graph_exec: *mut CUgraphExec, graph: CUgraph, ph_error_node: *mut CUgraphNode, log_buffer: *mut c_char, buffer_size: usize) ["cuGraphInstantiate", 10000, Base, GraphReady, hooked];
            cuGraphInstantiate_v2 (ph_graph_exec: *mut CUgraphExec, graph: CUgraph, ph_error_node: *mut CUgraphNode, log_buffer: *mut c_char, buffer_size: usize) ["cuGraphInstantiate", 11000, Base, GraphReady, hooked];
            cuGraphLaunch (graph: CUgraphExec, stream: CUstream) ["cuGraphLaunch", 10000, Base, GraphLaunch, hooked];
            cuGraphLaunch_ptsz (exec: CUgraphExec, stream: CUstream) ["cuGraphLaunch", 10000, PerThread, GraphLaunch, hooked];
            cuGraphExecDestroy (exec: CUgraphExec) ["cuGraphExecDestroy", 10000, Base, GraphEnd, hooked];
            cuGraphDestroy (graph: CUgraph) ["cuGraphDestroy", 10000, Base, GraphEnd, passed];
        }
    };
}

//! Rows of the table: textures, surfaces, tensor maps and graphics interoperation.

#[doc(hidden)]
#[macro_export]
macro_rules! cuda_rows_texture {
    ([$visit:path] [$($context:tt)*] $($before:tt)*) => {
        $visit! { [$($context)*] $($before)*
            // Textures, surfaces and tensor maps.
            cuTexRefSetArray (h_tex_ref: CUtexref, array: CUarray, flags: c_uint) ["cuTexRefSetArray", 2000, Base, Texture, passed];
            cuTexRefSetMipmappedArray (h_tex_ref: CUtexref, mipmap: CUmipmappedArray, flags: c_uint) ["cuTexRefSetMipmappedArray", 5000, Base, Texture, passed];
            cuTexRefSetAddress (byte_offset: *mut c_uint, h_tex_ref: CUtexref, dptr: u32, bytes: c_uint) ["cuTexRefSetAddress", 2000, Base, Texture, passed];
            cuTexRefSetAddress_v2 (byte_offset: *mut usize, h_tex_ref: CUtexref, dptr: CUdeviceptr, bytes: usize) ["cuTexRefSetAddress", 3020, Base, Texture, passed];
            cuTexRefSetAddress2D (h_tex_ref: CUtexref, desc: *const CUDA_ARRAY_DESCRIPTOR_v1, dptr: u32, pitch: c_uint) ["cuTexRefSetAddress2D", 2020, Base, Texture, passed];
            cuTexRefSetAddress2D_v2 (h_tex_ref: CUtexref, desc: *const CUDA_ARRAY_DESCRIPTOR, dptr: CUdeviceptr, pitch: usize) ["cuTexRefSetAddress2D", 3020, Base, Texture, passed];
            cuTexRefSetAddress2D_v3 (h_tex_ref: CUtexref, desc: *const CUDA_ARRAY_DESCRIPTOR, dptr: CUdeviceptr, pitch: usize) ["cuTexRefSetAddress2D", 4010, Base, Texture, passed];
            cuTexRefSetFormat (h_tex_ref: CUtexref, fmt: CUenum, num_packed_components: c_int) ["cuTexRefSetFormat", 2000, Base, Texture, passed];
            cuTexRefSetAddressMode (h_tex_ref: CUtexref, dim: c_int, am: CUenum) ["cuTexRefSetAddressMode", 2000, Base, Texture, passed];
            cuTexRefSetFilterMode (h_tex_ref: CUtexref, fm: CUenum) ["cuTexRefSetFilterMode", 2000, Base, Texture, passed];
            cuTexRefSetMipmapFilterMode (h_tex_ref: CUtexref, fm: CUenum) ["cuTexRefSetMipmapFilterMode", 5000, Base, Texture, passed];
            cuTexRefSetMipmapLevelBias (h_tex_ref: CUtexref, bias: f32) ["cuTexRefSetMipmapLevelBias", 5000, Base, Texture, passed];
            cuTexRefSetMipmapLevelClamp (h_tex_ref: CUtexref, min_mipmap_level_clamp: f32, max_mipmap_level_clamp: f32) ["cuTexRefSetMipmapLevelClamp", 5000, Base, Texture, passed];
            cuTexRefSetMaxAnisotropy (h_tex_ref: CUtexref, max_aniso: c_uint) ["cuTexRefSetMaxAnisotropy", 5000, Base, Texture, passed];
            cuTexRefSetBorderColor (h_tex_ref: CUtexref, p_border_color: *mut f32) ["cuTexRefSetBorderColor", 8000, Base, Texture, passed];
            cuTexRefSetFlags (h_tex_ref: CUtexref, flags: c_uint) ["cuTexRefSetFlags", 2000, Base, Texture, passed];
            cuTexRefGetAddress (pdptr: *mut u32, h_tex_ref: CUtexref) ["cuTexRefGetAddress", 2000, Base, Texture, passed];
            cuTexRefGetAddress_v2 (pdptr: *mut CUdeviceptr, h_tex_ref: CUtexref) ["cuTexRefGetAddress", 3020, Base, Texture, passed];
            cuTexRefGetArray (ph_array: *mut CUarray, h_tex_ref: CUtexref) ["cuTexRefGetArray", 2000, Base, Texture, passed];
            cuTexRefGetMipmappedArray (ph_mipmapped_array: *mut CUmipmappedArray, h_tex_ref: CUtexref) ["cuTexRefGetMipmappedArray", 5000, Base, Texture, passed];
            cuTexRefGetAddressMode (pam: *mut CUenum, h_tex_ref: CUtexref, dim: c_int) ["cuTexRefGetAddressMode", 2000, Base, Texture, passed];
            cuTexRefGetFilterMode (pfm: *mut CUenum, h_tex_ref: CUtexref) ["cuTexRefGetFilterMode", 2000, Base, Texture, passed];
            cuTexRefGetFormat (p_format: *mut CUenum, p_num_channels: *mut c_int, h_tex_ref: CUtexref) ["cuTexRefGetFormat", 2000, Base, Texture, passed];
            cuTexRefGetMipmapFilterMode (pfm: *mut CUenum, h_tex_ref: CUtexref) ["cuTexRefGetMipmapFilterMode", 5000, Base, Texture, passed];
            cuTexRefGetMipmapLevelBias (pbias: *mut f32, h_tex_ref: CUtexref) ["cuTexRefGetMipmapLevelBias", 5000, Base, Texture, passed];
            cuTexRefGetMipmapLevelClamp (pmin_mipmap_level_clamp: *mut f32, pmax_mipmap_level_clamp: *mut f32, h_tex_ref: CUtexref) ["cuTexRefGetMipmapLevelClamp", 5000, Base, Texture, passed];
            cuTexRefGetMaxAnisotropy (pmax_aniso: *mut c_int, h_tex_ref: CUtexref) ["cuTexRefGetMaxAnisotropy", 5000, Base, Texture, passed];
            cuTexRefGetBorderColor (p_border_color: *mut f32, h_tex_ref: CUtexref) ["cuTexRefGetBorderColor", 8000, Base, Texture, passed];
            cuTexRefGetFlags (p_flags: *mut c_uint, h_tex_ref: CUtexref) ["cuTexRefGetFlags", 2000, Base, Texture, passed];
            cuTexRefCreate (p_tex_ref: *mut CUtexref) ["cuTexRefCreate", 2000, Base, Texture, passed];
            cuTexRefDestroy (h_tex_ref: CUtexref) ["cuTexRefDestroy", 2000, Base, Texture, passed];
            cuSurfRefSetArray (h_surf_ref: CUsurfref, array: CUarray, flags: c_uint) ["cuSurfRefSetArray", 3000, Base, Texture, passed];
            cuSurfRefGetArray (ph_array: *mut CUarray, h_surf_ref: CUsurfref) ["cuSurfRefGetArray", 3000, Base, Texture, passed];
            cuTexObjectCreate (p_tex_object: *mut u64, p_res_desc: *const c_void, p_tex_desc: *const c_void, p_res_view_desc: *const c_void) ["cuTexObjectCreate", 5000, Base, Texture, passed];
            cuTexObjectDestroy (tex_object: u64) ["cuTexObjectDestroy", 5000, Base, Texture, passed];
            cuTexObjectGetResourceDesc (p_res_desc: *mut c_void, tex_object: u64) ["cuTexObjectGetResourceDesc", 5000, Base, Texture, passed];
            cuTexObjectGetTextureDesc (p_tex_desc: *mut c_void, tex_object: u64) ["cuTexObjectGetTextureDesc", 5000, Base, Texture, passed];
            cuTexObjectGetResourceViewDesc (p_res_view_desc: *mut c_void, tex_object: u64) ["cuTexObjectGetResourceViewDesc", 5000, Base, Texture, passed];
            cuSurfObjectCreate (p_surf_object: *mut u64, p_res_desc: *const c_void) ["cuSurfObjectCreate", 5000, Base, Texture, passed];
            cuSurfObjectDestroy (surf_object: u64) ["cuSurfObjectDestroy", 5000, Base, Texture, passed];
            cuSurfObjectGetResourceDesc (p_res_desc: *mut c_void, surf_object: u64) ["cuSurfObjectGetResourceDesc", 5000, Base, Texture, passed];
            cuTensorMapEncodeTiled (tensor_map: *mut c_void, tensor_data_type: CUenum, tensor_rank: u32, global_address: *mut c_void, global_dim: *const u64, global_strides: *const u64, box_dim: *const u32, element_strides: *const u32, interleave: CUenum, swizzle: CUenum, l2_promotion: CUenum, oob_fill: CUenum) ["cuTensorMapEncodeTiled", 12000, Base, Texture, passed];
            cuTensorMapEncodeIm2col (tensor_map: *mut c_void, tensor_data_type: CUenum, tensor_rank: u32, global_address: *mut c_void, global_dim: *const u64, global_strides: *const u64, pixel_box_lower_corner: *const c_int, pixel_box_upper_corner: *const c_int, channels_per_pixel: u32, pixels_per_column: u32, element_strides: *const u32, interleave: CUenum, swizzle: CUenum, l2_promotion: CUenum, oob_fill: CUenum) ["cuTensorMapEncodeIm2col", 12000, Base, Texture, passed];
            cuTensorMapEncodeIm2colWide (tensor_map: *mut c_void, tensor_data_type: CUenum, tensor_rank: u32, global_address: *mut c_void, global_dim: *const u64, global_strides: *const u64, pixel_box_lower_corner_width: c_int, pixel_box_upper_corner_width: c_int, channels_per_pixel: u32, pixels_per_column: u32, element_strides: *const u32, interleave: CUenum, mode: CUenum, swizzle: CUenum, l2_promotion: CUenum, oob_fill: CUenum) ["cuTensorMapEncodeIm2colWide", 12080, Base, Texture, passed];
            cuTensorMapReplaceAddress (tensor_map: *mut c_void, global_address: *mut c_void) ["cuTensorMapReplaceAddress", 12000, Base, Texture, passed];
            cuTensorMapSetAllocationClass (tensor_map: *mut c_void, alloc_class: CUenum, out_alloc_class: *mut CUenum) ["cuTensorMapSetAllocationClass", 13050, Base, Texture, passed];

            // Resources shared with graphics.
            cuGraphicsUnregisterResource (resource: CUgraphicsResource) ["cuGraphicsUnregisterResource", 3000, Base, Graphics, passed];
            cuGraphicsSubResourceGetMappedArray (p_array: *mut CUarray, resource: CUgraphicsResource, array_index: c_uint, mip_level: c_uint) ["cuGraphicsSubResourceGetMappedArray", 3000, Base, Graphics, passed];
            cuGraphicsResourceGetMappedMipmappedArray (p_mipmapped_array: *mut CUmipmappedArray, resource: CUgraphicsResource) ["cuGraphicsResourceGetMappedMipmappedArray", 5000, Base, Graphics, passed];
            cuGraphicsResourceGetMappedPointer (p_dev_ptr: *mut u32, p_size: *mut c_uint, resource: CUgraphicsResource) ["cuGraphicsResourceGetMappedPointer", 3000, Base, Graphics, passed];
            cuGraphicsResourceGetMappedPointer_v2 (p_dev_ptr: *mut CUdeviceptr, p_size: *mut usize, resource: CUgraphicsResource) ["cuGraphicsResourceGetMappedPointer", 3020, Base, Graphics, passed];
            cuGraphicsResourceSetMapFlags (resource: CUgraphicsResource, flags: c_uint) ["cuGraphicsResourceSetMapFlags", 3000, Base, Graphics, passed];
            cuGraphicsResourceSetMapFlags_v2 (resource: CUgraphicsResource, flags: c_uint) ["cuGraphicsResourceSetMapFlags", 6050, Base, Graphics, passed];
            cuGraphicsMapResources (count: c_uint, resources: *mut CUgraphicsResource, stream: CUstream) ["cuGraphicsMapResources", 3000, Base, Graphics, passed];
            cuGraphicsMapResources_ptsz (count: c_uint, resources: *mut CUgraphicsResource, stream: CUstream) ["cuGraphicsMapResources", 7000, PerThread, Graphics, passed];
            cuGraphicsUnmapResources (count: c_uint, resources: *mut CUgraphicsResource, stream: CUstream) ["cuGraphicsUnmapResources", 3000, Base, Graphics, passed];
            cuGraphicsUnmapResources_ptsz (count: c_uint, resources: *mut CUgraphicsResource, stream: CUstream) ["cuGraphicsUnmapResources", 7000, PerThread, Graphics, passed];
        }
    };
}

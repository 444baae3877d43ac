// Copies through vector types: 16, 8, 4 and 2 bytes an element.
extern "C" __global__ void copy_float4(const float4 *in, float4 *out, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = in[i];
}

extern "C" __global__ void swap_int2(const int2 *in, int2 *out, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = make_int2(in[i].y, in[i].x);
}

extern "C" __global__ void reverse_uchar4(const uchar4 *in, uchar4 *out, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = make_uchar4(in[i].w, in[i].z, in[i].y, in[i].x);
}

extern "C" __global__ void widen_short(const short *in, double2 *out, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = make_double2(in[i], -(double)in[i]);
}

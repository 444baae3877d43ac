// Reverses each block's slice of n words through dynamic shared memory.
extern "C" __global__ void shared_reverse(const unsigned int *in, unsigned int *out)
{
    extern __shared__ unsigned int slice[];
    unsigned int base = blockIdx.x * blockDim.x;
    slice[threadIdx.x] = in[base + threadIdx.x];
    __syncthreads();
    out[base + threadIdx.x] = slice[blockDim.x - 1 - threadIdx.x];
}

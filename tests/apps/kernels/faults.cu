// Kernels that go wrong on purpose. Each ends in the CUDA error named beside it.

// CUDA_ERROR_ILLEGAL_ADDRESS when index lies outside the allocation.
extern "C" __global__ void write_at(int *base, long long index, int value)
{
    base[index] = value;
}

// CUDA_ERROR_MISALIGNED_ADDRESS when byte_offset is not a multiple of four.
extern "C" __global__ void read_unaligned(const char *base, unsigned int byte_offset, int *out)
{
    *out = *(const int *)(base + byte_offset);
}

// CUDA_ERROR_LAUNCH_FAILED.
extern "C" __global__ void trap_in_thread(unsigned int thread)
{
    if (threadIdx.x == thread)
        __trap();
}

// CUDA_ERROR_ILLEGAL_ADDRESS when index lies outside the shared memory of the block.
extern "C" __global__ void shared_read_at(unsigned int index, int *out)
{
    __shared__ int words[32];
    words[threadIdx.x] = (int)threadIdx.x;
    __syncthreads();
    *out = words[index];
}

// Never ends by itself while *flag is zero.
extern "C" __global__ void wait_for_flag(volatile int *flag)
{
    while (*flag == 0)
        ;
}

// Half of the block leaves before the barrier: allowed, a thread that has exited is not waited for.
extern "C" __global__ void exit_before_barrier(int *out)
{
    if (threadIdx.x >= blockDim.x / 2)
        return;
    __syncthreads();
    out[threadIdx.x] = 1;
}

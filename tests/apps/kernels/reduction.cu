// Sum of n floats: a tree in shared memory, then one atomic a block. Launch with 256 threads a block.
extern "C" __global__ void reduce_sum(const float *in, float *out, unsigned int n)
{
    __shared__ float partial[256];
    unsigned int t = threadIdx.x;
    float sum = 0.0f;
    for (unsigned int i = blockIdx.x * blockDim.x + t; i < n; i += gridDim.x * blockDim.x)
        sum += in[i];
    partial[t] = sum;
    __syncthreads();
    for (unsigned int half = blockDim.x / 2; half > 0; half >>= 1) {
        if (t < half)
            partial[t] += partial[t + half];
        __syncthreads();
    }
    if (t == 0)
        atomicAdd(out, partial[0]);
}

// Sum of n unsigned integers by warp shuffles; exact, whatever the order.
extern "C" __global__ void reduce_sum_shuffle(const unsigned int *in, unsigned long long *out, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned long long sum = i < n ? in[i] : 0;
    for (int delta = 16; delta > 0; delta >>= 1)
        sum += __shfl_down_sync(0xffffffffu, sum, delta);
    if ((threadIdx.x & 31) == 0)
        atomicAdd(out, sum);
}

// How many of n values are at or above the limit, and the largest of them: votes, ballots and block-wide predicates.
extern "C" __global__ void count_at_least(const int *in, unsigned int n, int limit, unsigned int *count,
                                          int *largest, unsigned int *blocks_with_any)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    bool hit = i < n && in[i] >= limit;
    unsigned int votes = __ballot_sync(0xffffffffu, hit);
    if ((threadIdx.x & 31) == 0)
        atomicAdd(count, __popc(votes));
    if (hit)
        atomicMax(largest, in[i]);
    if (__syncthreads_or(hit) && threadIdx.x == 0)
        atomicInc(blocks_with_any, 0xffffffffu);
}

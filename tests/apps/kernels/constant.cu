// Module variables: a constant table, an initialised global, and one the host reads back.
__constant__ float coefficients[8] = {1.0f, 0.5f, 0.25f, 0.125f, -1.0f, -0.5f, -0.25f, -0.125f};
__constant__ int offset;
__device__ unsigned int launches;
__device__ int table[4] = {3, 1, 4, 1};
__device__ int *table_end = table + 4;

// A sliding filter with the constant table.
extern "C" __global__ void filter(const float *in, float *out, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i == 0)
        atomicAdd(&launches, 1u);
    if (i >= n)
        return;
    float sum = 0.0f;
    for (unsigned int k = 0; k < 8; k++)
        if (i + k < n)
            sum = fmaf(coefficients[k], in[i + k], sum);
    out[i] = sum;
}

// Reads the variables through a stored pointer.
extern "C" __global__ void sum_table(int *out)
{
    int sum = offset;
    for (int *p = table_end - 4; p != table_end; p++)
        sum += *p;
    *out = sum;
}

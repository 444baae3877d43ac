// C = A * B for square row-major matrices of n x n, with tiles in shared memory.
// Launch with 16 x 16 blocks; n need not be a multiple of 16.
#define TILE 16

extern "C" __global__ void matmul(const float *a, const float *b, float *c, unsigned int n)
{
    __shared__ float tile_a[TILE][TILE];
    __shared__ float tile_b[TILE][TILE];
    unsigned int row = blockIdx.y * TILE + threadIdx.y;
    unsigned int column = blockIdx.x * TILE + threadIdx.x;
    float sum = 0.0f;
    for (unsigned int start = 0; start < n; start += TILE) {
        unsigned int a_column = start + threadIdx.x;
        unsigned int b_row = start + threadIdx.y;
        tile_a[threadIdx.y][threadIdx.x] = row < n && a_column < n ? a[row * n + a_column] : 0.0f;
        tile_b[threadIdx.y][threadIdx.x] = b_row < n && column < n ? b[b_row * n + column] : 0.0f;
        __syncthreads();
        for (unsigned int k = 0; k < TILE; k++)
            sum = fmaf(tile_a[threadIdx.y][k], tile_b[k][threadIdx.x], sum);
        __syncthreads();
    }
    if (row < n && column < n)
        c[row * n + column] = sum;
}

// y = a * x + y: the smallest useful kernel, one thread an element.
extern "C" __global__ void saxpy(unsigned int n, float a, const float *x, float *y)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = a * x[i] + y[i];
}

// The same with a grid-stride loop, so that any grid covers any n.
extern "C" __global__ void saxpy_strided(unsigned int n, float a, const float *__restrict__ x, float *__restrict__ y)
{
    for (unsigned int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        y[i] = a * x[i] + y[i];
}

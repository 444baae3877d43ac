// Double precision: the first three results are IEEE operations and must match the CPU to the bit, the rest are
// polynomials of the CUDA mathematics library.
extern "C" __global__ void double_math(const double *x, const double *y, double *out, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    double a = x[i], b = y[i];
    out[i] = a / b;
    out[n + i] = sqrt(fabs(a));
    out[2 * n + i] = fma(a, b, -a);
    out[3 * n + i] = exp(-fabs(b));
    out[4 * n + i] = log(fabs(a) + 1.0);
    out[5 * n + i] = sin(a);
}

// Single precision: division, square root and conversions are IEEE, the rest approximate.
extern "C" __global__ void float_math(const float *x, const float *y, float *out, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    float a = x[i], b = y[i];
    out[i] = a / b;
    out[n + i] = sqrtf(fabsf(a));
    out[2 * n + i] = floorf(a) + fminf(a, b) - truncf(b);
    out[3 * n + i] = __fadd_rz(a, b);
    out[4 * n + i] = __fmul_ru(a, b);
    out[5 * n + i] = expf(-fabsf(b));
    out[6 * n + i] = __sinf(b);
    out[7 * n + i] = tanhf(a);
}

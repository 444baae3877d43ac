// Functions that the compiler is told not to inline: calls, returned structures, recursion, pointers to locals and
// indirect calls.
struct Pair {
    int low;
    int high;
    double mean;
};

__device__ __noinline__ Pair pair_of(int a, int b)
{
    Pair p;
    p.low = a < b ? a : b;
    p.high = a < b ? b : a;
    p.mean = (a + b) / 2.0;
    return p;
}

__device__ __noinline__ unsigned int collatz_steps(unsigned long long n)
{
    return n <= 1 ? 0 : 1 + collatz_steps(n & 1 ? 3 * n + 1 : n / 2);
}

__device__ __noinline__ void add_to(int *target, int value)
{
    *target += value;
}

__device__ __noinline__ int twice(int x)
{
    return 2 * x;
}

__device__ __noinline__ int square(int x)
{
    return x * x;
}

extern "C" __global__ void device_calls(const int *a, const int *b, double *mean, int *spread, unsigned int *steps,
                                        int *chosen, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    Pair p = pair_of(a[i], b[i]);
    mean[i] = p.mean;
    int total = 0;
    add_to(&total, p.high);
    add_to(&total, -p.low);
    spread[i] = total;
    steps[i] = collatz_steps(i + 1);
    int (*operation)(int) = i & 1 ? twice : square;
    chosen[i] = operation((int)i);
}

// A table indexed at run time lives in local memory; a dense switch becomes a jump table.
extern "C" __global__ void local_table(const unsigned int *in, unsigned int *out, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    unsigned int words[16];
    for (unsigned int k = 0; k < 16; k++)
        words[(k * 7 + i) & 15] = k + in[i];
    unsigned int value = words[in[i] & 15];
    switch (in[i] % 9) {
    case 0: value *= 3; break;
    case 1: value ^= 0x55aa55aa; break;
    case 2: value = ~value; break;
    case 3: value += i; break;
    case 4: value = value << 5 | value >> 27; break;
    case 5: value -= words[3]; break;
    case 6: value = value / 7; break;
    case 7: value = words[value & 15]; break;
    default: value = 0; break;
    }
    out[i] = value;
}

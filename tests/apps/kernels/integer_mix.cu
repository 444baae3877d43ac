// Bit tricks and wide integers; eight results an element.
extern "C" __global__ void integer_mix(const unsigned long long *in, unsigned long long *out, unsigned int n)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    unsigned long long v = in[i];
    unsigned int low = (unsigned int)v, high = (unsigned int)(v >> 32);
    long long s = (long long)v;
    out[8 * i + 0] = __umul64hi(v, 0x9e3779b97f4a7c15ULL);
    out[8 * i + 1] = (unsigned long long)__mul64hi(s, -7919LL);
    out[8 * i + 2] = __popcll(v) + 100 * __clzll(s) + 10000 * __ffs((int)low);
    out[8 * i + 3] = __brevll(v) ^ __byte_perm(low, high, 0x3175);
    out[8 * i + 4] = ((unsigned long long)__funnelshift_l(low, high, i) << 32) | __funnelshift_rc(low, high, i);
    out[8 * i + 5] = (unsigned long long)(s / ((long long)i - 7 == 0 ? 3 : (long long)i - 7)) + v % (i + 1);
    out[8 * i + 6] = ((unsigned long long)__umulhi(low, high) << 32) | (unsigned int)__mulhi((int)low, (int)high);
    unsigned __int128 wide = (unsigned __int128)v * v + high;
    out[8 * i + 7] = (unsigned long long)(wide >> 64) ^ (unsigned long long)wide ^ __usad(low, high, 7u);
}

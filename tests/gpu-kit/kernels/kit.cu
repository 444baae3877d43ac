// Kernels of the kit's own programs. Built by tests/apps/kernels/regenerate.

// Nothing: what a launch costs by itself.
extern "C" __global__ void nothing()
{
}

// A fixed amount of arithmetic in every thread, each step waiting for the one before. Unlike a loop on a clock it stands
// still while another process has the device, so that its throughput is the share of the device it got.
extern "C" __global__ void work(float *sink, unsigned int steps)
{
    float value = threadIdx.x;
    for (unsigned int i = 0; i < steps; i++)
        value = fmaf(value, 0.9999f, 0.0001f);
    if (value == -1.0f)
        *sink = value;
}

// One thread watches the clock and writes down every pause longer than `threshold_ns`: the turns of other processes.
// out[0] is the number of pauses; then pairs of when one began and how long it was.
extern "C" __global__ void trace(unsigned long long *out, unsigned int capacity, unsigned long long duration_ns,
                                 unsigned long long threshold_ns)
{
    unsigned long long start, last, now;
    unsigned int count = 0;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    last = start;
    do {
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
        if (now - last > threshold_ns && count < capacity) {
            out[1 + 2 * count] = last - start;
            out[2 + 2 * count] = now - last;
            count++;
        }
        last = now;
    } while (now - start < duration_ns);
    out[0] = count;
}

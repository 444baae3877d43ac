// Work for launch loops: a few instructions and a count of launches that reached the device.
extern "C" __global__ void spin(unsigned long long *counter)
{
    if (blockIdx.x == 0 && threadIdx.x == 0)
        atomicAdd(counter, 1ULL);
}

// Keeps every thread busy for the given number of SM clock cycles, then counts the launch.
extern "C" __global__ void spin_for(unsigned long long *counter, long long cycles)
{
    long long start = clock64();
    while (clock64() - start < cycles)
        ;
    if (blockIdx.x == 0 && threadIdx.x == 0)
        atomicAdd(counter, 1ULL);
}

// A program linked to the driver library, as old CUDA programs are: takes units until one is refused.
#include <stdio.h>

unsigned cuInit(unsigned);
unsigned cuDevicePrimaryCtxRetain(void **, int);
unsigned cuCtxSetCurrent(void *);
unsigned cuMemAlloc_v2(unsigned long long *, size_t);

int main(void)
{
    void *context;
    unsigned status = cuInit(0);
    if (status == 0)
        status = cuDevicePrimaryCtxRetain(&context, 0);
    if (status == 0)
        status = cuCtxSetCurrent(context);
    if (status != 0) {
        printf("CUDA does not start: %u\n", status);
        return 1;
    }
    unsigned long long address;
    unsigned long units = 0;
    while ((status = cuMemAlloc_v2(&address, 2 << 20)) == 0)
        units++;
    printf("took %lu refused %u\n", units, status);
    return 0;
}

/* A program with the driver linked into it, as those that carry a static CUDA have: nothing is loaded, nothing exported. */

#include "driver.c"

#include <stdio.h>

extern long cuCtxSynchronize(long);

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

int main(void)
{
    char line[256];
    long ns, count;
    setvbuf(stdout, 0, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "call cuCtxSynchronize %ld %ld", &ns, &count) != 2) {
            puts("error");
            continue;
        }
        long start = now();
        for (long i = 0; i < count; i++)
            cuCtxSynchronize(ns);
        printf("ok %ld\n", now() - start);
    }
    return 0;
}

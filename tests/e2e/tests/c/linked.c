/* A program that is linked with the driver, and looks at what it finds beside a borrowed device. Says what was wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

int cuInit(unsigned);
int cuDeviceGetCount(int *);
int cuDevicePrimaryCtxRetain(void **, int);
int cuDevicePrimaryCtxGetState(int, unsigned *, int *);
int cuMemAlloc_v2(unsigned long long *, size_t);
int cuIpcGetMemHandle(void *, unsigned long long);
int cuGetProcAddress_v2(const char *, void **, int, unsigned long long, int *);

static int wrong;

static void want(const char *what, long long found, long long expected)
{
    if (found != expected) {
        printf("%s: %lld, expected %lld\n", what, found, expected);
        wrong = 1;
    }
}

int main(void)
{
    unsigned long long address;
    unsigned flags;
    int count = 0, active = -1, status = -1;
    void *context = 0, *found = &wrong;
    char shared[64];

    want("cuInit", cuInit(0), 0);
    want("cuDeviceGetCount", cuDeviceGetCount(&count), 0);
    want("devices", count, 2);
    want("cuMemAlloc in no context", cuMemAlloc_v2(&address, 4096), 201);
    /* What does not travel: linked with it is refused, looked up it is not there. */
    want("cuIpcGetMemHandle", cuIpcGetMemHandle(shared, 0), 801);
    void *driver = dlopen("libcuda.so.1", RTLD_LAZY);
    want("dlopen", driver != 0, 1);
    want("dlsym of what does not travel", dlsym(driver, "cuIpcGetMemHandle") == 0, 1);
    want("the same anywhere", dlsym(RTLD_DEFAULT, "cuIpcGetMemHandle") == 0, 1);
    want("cuGetProcAddress", cuGetProcAddress_v2("cuIpcGetMemHandle", &found, 12000, 0, &status), 0);
    want("its answer", found == 0 && status == 1, 1);
    /* What travels is one function, however it is found. */
    want("dlsym", dlsym(driver, "cuMemAlloc_v2") == (void *)cuMemAlloc_v2, 1);
    want("dlsym anywhere", dlsym(RTLD_DEFAULT, "cuMemAlloc_v2") == (void *)cuMemAlloc_v2, 1);
    want("cuGetProcAddress", cuGetProcAddress_v2("cuMemAlloc", &found, 12000, 0, &status), 0);
    want("its answer", found == (void *)cuMemAlloc_v2 && status == 0, 1);
    /* Other names are the loader's affair. */
    want("dlsym of the C library's", dlsym(RTLD_DEFAULT, "printf") == (void *)printf, 1);
    want("dlsym of nobody's", dlsym(driver, "cuNobodyHasThis") == 0, 1);
    want("why", dlerror() != 0, 1);
    want("dlsym itself", dlsym(RTLD_NEXT, "dlsym") != 0, 1);
    /* One device was borrowed: the other is there and cannot be used. */
    want("cuDevicePrimaryCtxGetState(1)", cuDevicePrimaryCtxGetState(1, &flags, &active), 0);
    want("active", active, 0);
    want("cuDevicePrimaryCtxRetain(1)", cuDevicePrimaryCtxRetain(&context, 1), 46);
    want("cuDevicePrimaryCtxRetain(2)", cuDevicePrimaryCtxRetain(&context, 2), 101);
    want("cuDevicePrimaryCtxRetain(0)", cuDevicePrimaryCtxRetain(&context, 0), 0);
    return wrong;
}

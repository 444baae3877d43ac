// A plug-in opened with RTLD_DEEPBIND prefers its own libraries' symbols, the C library's dlsym among them, to whatever
// was preloaded. Built twice: as the plug-in (-DPLUGIN), and as the program that opens it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

#ifdef PLUGIN
int take(void)
{
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    unsigned (*init)(unsigned) = (unsigned (*)(unsigned))dlsym(driver, "cuInit");
    unsigned (*retain)(void **, int) = (unsigned (*)(void **, int))dlsym(driver, "cuDevicePrimaryCtxRetain");
    unsigned (*enter)(void *) = (unsigned (*)(void *))dlsym(driver, "cuCtxSetCurrent");
    unsigned (*alloc)(unsigned long long *, size_t) =
        (unsigned (*)(unsigned long long *, size_t))dlsym(driver, "cuMemAlloc_v2");
    void *context;
    unsigned long long address;
    unsigned long units = 0;
    unsigned status = init(0);
    if (status == 0)
        status = retain(&context, 0);
    if (status == 0)
        status = enter(context);
    if (status != 0)
        return 1;
    while ((status = alloc(&address, 2 << 20)) == 0)
        units++;
    printf("took %lu refused %u\n", units, status);
    return 0;
}
#else
int main(int count, char **words)
{
    void *plugin = count == 2 ? dlopen(words[1], RTLD_NOW | RTLD_DEEPBIND) : 0;
    int (*take)(void) = plugin ? (int (*)(void))dlsym(plugin, "take") : 0;
    if (!take) {
        printf("no plug-in: %s\n", dlerror());
        return 1;
    }
    return take();
}
#endif

/* Preloaded behind what redirects: a driver whose devices have another UUID for whoever asks through the loader. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

typedef int (*Uuid)(unsigned char *, int);

static Uuid genuine;

static int lie(unsigned char *uuid, int device)
{
    int status = genuine(uuid, device);
    uuid[15] ^= 1;
    return status;
}

void *dlsym(void *handle, const char *name)
{
    static void *(*real)(void *, const char *);
    if (!real)
        real = (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
    void *found = real(handle, name);
    if (!found || strncmp(name, "cuDeviceGetUuid", 15) != 0)
        return found;
    genuine = (Uuid)found;
    return (void *)lie;
}

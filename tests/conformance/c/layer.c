// A layer that stands in front of dlsym, as tracing and overlay libraries do: counts look-ups, passes them on to the
// next dlsym, which it finds by name. Built as a library to be preloaded before others.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static void *(*next)(void *, const char *);
static unsigned long lookups;

static void tell(void)
{
    fprintf(stderr, "layer: %s\n", lookups ? "passed look-ups on" : "saw no look-ups");
}

void *dlsym(void *handle, const char *name)
{
    if (!next)
        next = dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.2.5");
    if (lookups++ == 0)
        atexit(tell);
    return next(handle, name);
}

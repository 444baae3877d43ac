/* A program that allocates: at random against a model of its own, or one call at a time, through the hook or around it. Reads one
 * command a line, answers "ok NUMBERS.." or "errno N". Arguments: the driver, the hook. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef unsigned long long u64;
typedef long (*function)(long, long, long, long, long);

static void *driver;
static long (*hook_call)(function, long, long, long, long, long);

enum kind { PLAIN, MANAGED, PHYSICAL, ARRAY, KINDS };
enum { SLOTS = 512, THREADS = 8 };
struct model {
    struct { u64 name, bytes; enum kind kind; } slot[SLOTS];
    u64 bytes[KINDS], held, seed;
};
static struct model models[THREADS];

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static function find(const char *name)
{
    function f = (function)dlsym(driver, name);
    if (!f)
        fprintf(stderr, "no %s\n", name), abort();
    return f;
}

static u64 next(u64 *seed) { return *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17; }

/* One allocation of some family; its size by the rules of the driver's documentation, zero if it was refused. */
static u64 allocate(u64 *seed, u64 *name, enum kind *kind)
{
    static const char *const plain[] = { "cuMemAlloc_v2", "cuMemAllocAsync", "cuMemAllocAsync_ptsz", "cuMemAllocFromPoolAsync" };
    u64 bytes = next(seed) % 1000000 + 1, choice = next(seed) % 9, pitch = 0;
    if (next(seed) % 16 == 0)
        bytes = 13;
    *kind = PLAIN;
    if (choice < 4)
        return hook_call(find(plain[choice]), (long)name, (long)bytes, 0, 0, 0) ? 0 : bytes;
    if (choice == 4) {
        u64 height = next(seed) % 50 + 1;
        return hook_call(find("cuMemAllocPitch_v2"), (long)name, (long)&pitch, (long)(bytes % 5000 + 1), (long)height, 4) ? 0 : pitch * height;
    }
    if (choice == 5) {
        *kind = MANAGED;
        return hook_call(find("cuMemAllocManaged"), (long)name, (long)bytes, 1, 0, 0) ? 0 : bytes;
    }
    if (choice == 6) {
        unsigned properties[8] = { 1, 0, 1, 0 };
        *kind = PHYSICAL;
        return hook_call(find("cuMemCreate"), (long)name, (long)bytes, (long)properties, 0, 0) ? 0 : bytes;
    }
    *kind = ARRAY;
    if (choice == 7) {
        struct { u64 width, height; unsigned format, channels; } d = { bytes % 1000 + 14, bytes % 7, 0x20, 4 };
        return hook_call(find("cuArrayCreate_v2"), (long)name, (long)&d, 0, 0, 0) ? 0 : d.width * (d.height ? d.height : 1) * 16;
    }
    struct { u64 width, height, depth; unsigned format, channels, flags, pad; } d = { bytes % 100 + 14, 3, bytes % 5, 0x01, 2, 0, 0 };
    return hook_call(find("cuArray3DCreate_v2"), (long)name, (long)&d, 0, 0, 0) ? 0 : d.width * 3 * (d.depth ? d.depth : 1) * 2;
}

static void give_back(struct model *m, int i)
{
    static const char *const calls[] = { "cuMemFree_v2", "cuMemFree_v2", "cuMemRelease", "cuArrayDestroy" };
    enum kind kind = m->slot[i].kind;
    const char *call = kind <= MANAGED && next(&m->seed) % 2 ? "cuMemFreeAsync" : calls[kind];
    if (hook_call(find(call), (long)m->slot[i].name, 0, 0, 0, 0))
        abort();
    m->bytes[kind] -= m->slot[i].bytes, m->held--, m->slot[i].bytes = 0;
}

static long operations;
static void *work(void *argument)
{
    struct model *m = argument;
    for (long n = 0; n < operations; n++) {
        int i = next(&m->seed) % SLOTS;
        if (m->slot[i].bytes) {
            /* One that the driver refuses must not be taken off. */
            if (next(&m->seed) % 16 == 0)
                hook_call(find("cuMemFree_v2"), (long)(m->slot[i].name | 1), 0, 0, 0, 0);
            give_back(m, i);
        } else if ((m->slot[i].bytes = allocate(&m->seed, &m->slot[i].name, &m->slot[i].kind))) {
            m->bytes[m->slot[i].kind] += m->slot[i].bytes, m->held++;
        }
    }
    return 0;
}

static void report(void)
{
    u64 sum[KINDS + 1] = { 0 };
    for (int t = 0; t < THREADS; t++) {
        for (int k = 0; k < KINDS; k++)
            sum[k] += models[t].bytes[k];
        sum[KINDS] += models[t].held;
    }
    printf("ok %llu %llu %llu %llu %llu\n", sum[0], sum[1], sum[2], sum[3], sum[4]);
}

static void run(u64 seed, long count, int threads)
{
    pthread_t thread[THREADS];
    operations = count / threads;
    for (int t = 0; t < threads; t++) {
        models[t].seed = seed * 2654435761u + t + 1;
        pthread_create(&thread[t], 0, work, &models[t]);
    }
    for (int t = 0; t < threads; t++)
        pthread_join(thread[t], 0);
}

int main(int argc, char **argv)
{
    char line[256], name[128];
    unsigned long seed;
    long count, a, b = 0;
    int threads;
    setvbuf(stdin, 0, _IONBF, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    void *hook = argc == 3 ? dlopen(argv[2], RTLD_NOW) : 0;
    if (!hook || !(driver = dlopen(argv[1], RTLD_NOW)))
        return fprintf(stderr, "%s\n", dlerror()), 2;
    *(void **)&hook_call = dlsym(hook, "hook_call");
    if (getenv("AGENT_EXECUTED"))
        puts("ok 0");
    while (fgets(line, sizeof line, stdin)) {
        u64 out[4] = { 0 };
        if (sscanf(line, "random %lu %ld %d", &seed, &count, &threads) == 3) {
            run(seed, count, threads), report();
        } else if (sscanf(line, "fork-random %lu %ld %d", &seed, &count, &threads) == 3) {
            /* A child that dies with what it holds. */
            pid_t child = fork();
            if (!child)
                memset(models, 0, sizeof models), run(seed, count, threads), kill(getpid(), 9);
            waitpid(child, 0, 0), puts("ok 0");
        } else if (!strcmp(line, "free-all\n")) {
            for (int t = 0; t < THREADS; t++)
                for (int i = 0; i < SLOTS; i++)
                    if (models[t].slot[i].bytes)
                        give_back(&models[t], i);
            report();
        } else if (sscanf(line, "hooked %127s %ld %ld", name, &a, &count) == 3) {
            for (long n = 0; n < count; n++)
                b = hook_call(find(name), a ? a : (long)out, a ? 0 : 64, 0, 0, 0);
            printf("ok %ld %llu\n", b, out[0]);
        } else if (sscanf(line, "direct %127s %ld %ld", name, &a, &count) == 3) {
            for (long n = 0; n < count; n++)
                b = find(name)(a ? a : (long)out, a ? 0 : 64, 0, 0, 0);
            printf("ok %ld %llu\n", b, out[0]);
        } else if (sscanf(line, "churn %ld", &count) == 1) {
            /* An allocation and its end, over and over; answers nanoseconds. */
            function allocate = find("cuMemAlloc_v2"), free = find("cuMemFree_v2");
            long start = now();
            for (long n = 0; n < count; n++)
                allocate((long)out, 64, 0, 0, 0), free((long)out[0], 0, 0, 0, 0);
            printf("ok %ld\n", now() - start);
        } else if (sscanf(line, "launch %ld", &count) == 1) {
            function launch = find("cuLaunchKernel");
            long start = now();
            for (long n = 0; n < count; n++)
                launch(0, 0, 0, 0, 0);
            printf("ok %ld\n", now() - start);
        } else if (sscanf(line, "load %127s", name) == 1) {
            /* Another copy of the driver, past whatever was loaded first. */
            void *other = dlopen(name, RTLD_NOW | RTLD_DEEPBIND);
            if (other)
                driver = other, puts("ok 0");
            else
                puts("errno 2");
        } else if (!strcmp(line, "exec\n")) {
            setenv("AGENT_EXECUTED", "1", 1), execv("/proc/self/exe", argv);
        } else {
            printf("errno %d\n", ENOSYS);
        }
    }
    return 0;
}

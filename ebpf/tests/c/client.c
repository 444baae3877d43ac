/* A process for the tests to direct: reads one command a line, answers "ok NANOSECONDS" or "error". Its first
 * argument is the driver library it loads. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

typedef long (*sync_call)(long);
static void *library;
static jmp_buf out;

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void escape(void) { longjmp(out, 1); }

static long calls(const char *name, long ns, long count)
{
    sync_call call = (sync_call)dlsym(library, name);
    if (!call)
        return -1;
    long start = now();
    for (long i = 0; i < count; i++)
        call(ns);
    return now() - start;
}

/* As the hook calls: with a word for a device in the register of a sixth argument. */
static long told(const char *name, long ns, long count, unsigned long row)
{
    long (*call)(long, long, long, long, long, unsigned long) = (void *)dlsym(library, name);
    if (!call)
        return -1;
    long start = now();
    for (long i = 0; i < count; i++)
        call(ns, 0, 0, 0, 0, 0x6865616467617400UL | row);
    return now() - start;
}

/* Leaves a call by longjmp; then makes calls from the same frame (deeper = 0) or from one below it. */
static long jump(const char *name, int deeper, long count)
{
    sync_call call = (sync_call)dlsym(library, name);
    void (**hook)(void) = (void (**)(void))dlsym(library, "driver_escape");
    if (!call || !hook)
        return -1;
    *hook = escape;
    long start = now();
    for (volatile int first = 1; first;) {
        first = 0;
        if (!setjmp(out))
            call(-1);
    }
    if (deeper)
        return calls(name, 0, count);
    for (volatile long i = 0; i < count; i++)
        call(0);
    return now() - start;
}

/* Two connected sockets of this process: pair[0] and pair[1]. */
static int connected(int pair[2])
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    pair[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&address, length) || listen(listener, 1)
        || getsockname(listener, (void *)&address, &length) || connect(pair[0], (void *)&address, length))
        return -1;
    pair[1] = accept(listener, 0, 0);
    close(listener);
    setsockopt(pair[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return setsockopt(pair[1], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Round trips over loopback. */
static long round_trips(long count)
{
    int pair[2];
    char byte = 'x';
    if (connected(pair))
        return -1;
    long start = now();
    for (long i = 0; i < count; i++)
        if (write(pair[0], &byte, 1) != 1 || read(pair[1], &byte, 1) != 1 || write(pair[1], &byte, 1) != 1
            || read(pair[0], &byte, 1) != 1)
            return -1;
    long elapsed = now() - start;
    close(pair[0]), close(pair[1]);
    return elapsed;
}

/* One byte whose receiver drops it until it has been sent again. */
static long lossy(void)
{
    int pair[2];
    char byte = 'x';
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = { 1, &drop };
    struct tcp_info info = { 0 };
    socklen_t length = sizeof info;
    if (connected(pair) || setsockopt(pair[1], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program))
        return -1;
    long start = now();
    if (write(pair[0], &byte, 1) != 1)
        return -1;
    while (!info.tcpi_total_retrans && now() - start < 5000000000L)
        if (getsockopt(pair[0], IPPROTO_TCP, TCP_INFO, &info, &length))
            return -1;
    if (setsockopt(pair[1], SOL_SOCKET, SO_DETACH_FILTER, &program, sizeof program) || read(pair[1], &byte, 1) != 1)
        return -1;
    close(pair[0]), close(pair[1]);
    return now() - start;
}

int main(int argc, char **argv)
{
    char line[256], name[128];
    long ns, count, elapsed;
    unsigned long row;
    if (argc != 2 || !(library = dlopen(argv[1], RTLD_NOW)))
        return 2;
    setvbuf(stdout, 0, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        elapsed = -1;
        if (sscanf(line, "call %127s %ld %ld", name, &ns, &count) == 3)
            elapsed = calls(name, ns, count);
        else if (sscanf(line, "told %127s %ld %ld %lu", name, &ns, &count, &row) == 4)
            elapsed = told(name, ns, count, row);
        else if (sscanf(line, "jump %127s %ld %ld", name, &ns, &count) == 3)
            elapsed = jump(name, ns != 0, count);
        else if (sscanf(line, "tcp %ld", &count) == 1)
            elapsed = round_trips(count);
        else if (!strcmp(line, "lossy\n"))
            elapsed = lossy();
        if (elapsed < 0)
            puts("error");
        else
            printf("ok %ld\n", elapsed);
    }
    return 0;
}

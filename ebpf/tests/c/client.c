/* A process for the tests to direct: reads one command a line, answers "ok NANOSECONDS" or "error". Its first
 * argument is the driver library it loads. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
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

/* Round trips over loopback between two sockets of this process. */
static long round_trips(long count)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0), here = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&address, length) || listen(listener, 1)
        || getsockname(listener, (void *)&address, &length) || connect(here, (void *)&address, length))
        return -1;
    int there = accept(listener, 0, 0);
    setsockopt(here, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(there, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    char byte = 'x';
    long start = now();
    for (long i = 0; i < count; i++)
        if (write(here, &byte, 1) != 1 || read(there, &byte, 1) != 1 || write(there, &byte, 1) != 1
            || read(here, &byte, 1) != 1)
            return -1;
    long elapsed = now() - start;
    close(here), close(there), close(listener);
    return elapsed;
}

int main(int argc, char **argv)
{
    char line[256], name[128];
    long ns, count, elapsed;
    if (argc != 2 || !(library = dlopen(argv[1], RTLD_NOW)))
        return 2;
    setvbuf(stdout, 0, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        elapsed = -1;
        if (sscanf(line, "call %127s %ld %ld", name, &ns, &count) == 3)
            elapsed = calls(name, ns, count);
        else if (sscanf(line, "jump %127s %ld %ld", name, &ns, &count) == 3)
            elapsed = jump(name, ns != 0, count);
        else if (sscanf(line, "tcp %ld", &count) == 1)
            elapsed = round_trips(count);
        if (elapsed < 0)
            puts("error");
        else
            printf("ok %ld\n", elapsed);
    }
    return 0;
}

/* A process that does what a tenant might: connects, sends, writes frames, opens devices, forks, executes. Reads one command a
 * line, answers "ok NUMBERS.." or "errno N". */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static unsigned long *total; /* bytes or frames received, shared with forked children */
static char buffer[1 << 16];

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int fail(void) { return printf("errno %d\n", errno); }

struct place {
    struct sockaddr_storage address;
    socklen_t length;
};

static int place(const char *host, int port, struct place *to)
{
    struct sockaddr_in *v4 = (void *)&to->address;
    struct sockaddr_in6 *v6 = (void *)&to->address;
    memset(to, 0, sizeof *to);
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET, v4->sin_port = htons(port), to->length = sizeof *v4;
        return 0;
    }
    v6->sin6_family = AF_INET6, v6->sin6_port = htons(port), to->length = sizeof *v6;
    return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1 ? 0 : -1;
}

/* Receives whatever comes and counts its bytes. */
static void *drain(void *argument)
{
    static __thread char bytes[1 << 16];
    int fd = (int)(long)argument;
    for (ssize_t got; (got = recv(fd, bytes, sizeof bytes, 0)) > 0;)
        __atomic_add_fetch(total, got, __ATOMIC_SEQ_CST);
    close(fd);
    return 0;
}

static void *receive(void *argument)
{
    pthread_t thread;
    int fd = (int)(long)argument, kind = 0, connection;
    socklen_t length = sizeof kind;
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &length);
    if (kind != SOCK_STREAM)
        return drain(argument);
    while ((connection = accept(fd, 0, 0)) >= 0)
        pthread_create(&thread, 0, drain, (void *)(long)connection), pthread_detach(thread);
    return 0;
}

/* Counts frames; a socket bound to one ethertype sees them behind the interface's programs, unlike a tap. */
static void *count_frames(void *argument)
{
    static __thread char frame[2048];
    while (recv((int)(long)argument, frame, sizeof frame, 0) > 0)
        __atomic_add_fetch(total, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static int start(void *(*body)(void *), int fd)
{
    pthread_t thread;
    pthread_create(&thread, 0, body, (void *)(long)fd), pthread_detach(thread);
    return puts("ok 0");
}

static int sink(const char *kind, int port)
{
    struct place any;
    int tcp = !strcmp(kind, "tcp"), on = 1, fd = socket(AF_INET6, tcp ? SOCK_STREAM : SOCK_DGRAM, 0);
    place("::", port, &any);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (void *)&any.address, any.length) || (tcp && listen(fd, 64)))
        return fail();
    return start(receive, fd);
}

static int sniff(const char *interface, int ethertype)
{
    struct sockaddr_ll link = { .sll_family = AF_PACKET, .sll_protocol = htons(ethertype) };
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    link.sll_ifindex = if_nametoindex(interface);
    if (fd < 0 || bind(fd, (void *)&link, sizeof link))
        return fail();
    return start(count_frames, fd);
}

/* A connection that sends so many bytes and waits for the other side's end. Answers bytes and segments sent. */
static int stream(const char *host, int port, long bytes)
{
    struct place to;
    struct timeval limit = { .tv_sec = 1 };
    struct tcp_info info = { 0 };
    socklen_t length = sizeof info;
    if (place(host, port, &to))
        return fail();
    int fd = socket(to.address.ss_family, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (void *)&to.address, to.length)) {
        fail();
        return close(fd);
    }
    for (long left = bytes, sent; left > 0; left -= sent) {
        sent = send(fd, buffer, left < (long)sizeof buffer ? (size_t)left : sizeof buffer, MSG_NOSIGNAL);
        if (sent < 0) {
            fail();
            return close(fd);
        }
    }
    shutdown(fd, SHUT_WR);
    while (recv(fd, buffer, sizeof buffer, 0) > 0)
        ;
    getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length);
    printf("ok %lu %u %u\n", (unsigned long)info.tcpi_bytes_sent, info.tcpi_segs_out, info.tcpi_total_retrans);
    return close(fd);
}

/* Datagrams, connected or not, or raw IP packets of an unassigned protocol. Answers how many the kernel took,
 * and how many nanoseconds it all was. */
static int datagrams(const char *kind, const char *host, int port, int bytes, long count)
{
    struct place to;
    int raw = !strcmp(kind, "raw"), connected = !strcmp(kind, "udpc");
    long taken = 0;
    if (place(host, raw ? 0 : port, &to))
        return fail();
    int fd = socket(to.address.ss_family, raw ? SOCK_RAW : SOCK_DGRAM, raw ? 253 : 0);
    if (fd < 0 || (connected && connect(fd, (void *)&to.address, to.length))) {
        fail();
        return close(fd);
    }
    long start = now();
    for (long i = 0; i < count; i++)
        taken += (connected ? send(fd, buffer, bytes, 0)
                            : sendto(fd, buffer, bytes, 0, (void *)&to.address, to.length)) == bytes;
    if (taken)
        printf("ok %ld %ld\n", taken, now() - start);
    else
        fail();
    return close(fd);
}

/* Frames around the network stack: with an IP ethertype, a UDP datagram to the host. */
static int frames(const char *interface, const char *mac, int ethertype, const char *host, int bypass, long count)
{
    struct sockaddr_ll link = { .sll_family = AF_PACKET, .sll_protocol = htons(ethertype), .sll_halen = ETH_ALEN };
    unsigned char frame[128] = { 0 };
    long taken = 0;
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    link.sll_ifindex = if_nametoindex(interface);
    if (fd < 0 || (bypass && setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &bypass, sizeof bypass)))
        return fail();
    sscanf(mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", frame, frame + 1, frame + 2, frame + 3, frame + 4, frame + 5);
    memcpy(link.sll_addr, frame, ETH_ALEN);
    frame[12] = ethertype >> 8, frame[13] = ethertype & 255;
    if (ethertype == ETH_P_IP) {
        unsigned char *ip = frame + 14;
        ip[0] = 0x45, ip[3] = 48, ip[8] = 64, ip[9] = 17, ip[12] = 10, ip[15] = 2; /* from 10.0.0.2 */
        inet_pton(AF_INET, host, ip + 16);
        unsigned sum = 0;
        for (int i = 0; i < 20; i += 2)
            sum += ip[i] << 8 | ip[i + 1];
        sum = ~((sum & 0xffff) + (sum >> 16));
        ip[10] = sum >> 8, ip[11] = sum;
        ip[22] = 9000 >> 8, ip[23] = 9000 & 255, ip[25] = 28; /* to port 9000, no checksum */
    }
    for (long i = 0; i < count; i++)
        taken += sendto(fd, frame, 62, 0, (void *)&link, sizeof link) == 62;
    printf("ok %ld\n", taken);
    return close(fd);
}

/* A child that sends datagrams until it is killed. */
static int flood(const char *host, int port)
{
    struct place to;
    pid_t child = fork();
    if (child)
        return printf("ok %d\n", child);
    place(host, port, &to);
    int fd = socket(to.address.ss_family, SOCK_DGRAM, 0);
    for (;;)
        sendto(fd, buffer, 64, 0, (void *)&to.address, to.length);
}

static int open_device(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return fail();
    close(fd);
    return puts("ok 0");
}

/* The same many times; answers nanoseconds. */
static int open_often(const char *path, long count)
{
    long start = now();
    for (long i = 0; i < count; i++)
        close(open(path, O_RDWR | O_CLOEXEC));
    return printf("ok %ld\n", now() - start);
}

/* Connections to where nobody listens: the address is judged and that is all. Answers nanoseconds. */
static int connect_often(const char *host, int port, long count)
{
    struct place to;
    place(host, port, &to);
    int fd = socket(to.address.ss_family, SOCK_DGRAM, 0);
    long start = now();
    for (long i = 0; i < count; i++)
        if (connect(fd, (void *)&to.address, to.length))
            return fail();
    printf("ok %ld\n", now() - start);
    return close(fd);
}

/* The same from a child made by fork. */
static int open_in_child(const char *path)
{
    int status = 0;
    fflush(stdout);
    pid_t child = fork();
    if (!child)
        _exit(open(path, O_RDWR) < 0 ? errno : 0);
    waitpid(child, &status, 0);
    errno = WEXITSTATUS(status);
    return errno ? fail() : puts("ok 0");
}

static int map_code(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0 || mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
        return fail();
    return puts("ok 0");
}

int main(int argc, char **argv)
{
    char line[512], a[128], b[128], c[128];
    long n, m, k;
    int e;
    (void)argc;
    /* Unbuffered, so that nothing is lost when another program takes over. */
    setvbuf(stdin, 0, _IONBF, 0);
    setvbuf(stdout, 0, _IOLBF, 0);
    total = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (getenv("AGENT_EXECUTED"))
        puts("ok 0");
    while (fgets(line, sizeof line, stdin)) {
        errno = 0;
        if (sscanf(line, "sink %127s %ld", a, &n) == 2)
            sink(a, n);
        else if (sscanf(line, "sniff %127s %x", a, &e) == 2)
            sniff(a, e);
        else if (!strcmp(line, "total\n"))
            printf("ok %lu\n", __atomic_load_n(total, __ATOMIC_SEQ_CST));
        else if (sscanf(line, "tcp %127s %ld %ld", a, &n, &m) == 3)
            stream(a, n, m);
        else if (sscanf(line, "send %127s %127s %ld %ld %ld", a, b, &n, &m, &k) == 5)
            datagrams(a, b, n, m, k);
        else if (sscanf(line, "frames %127s %127s %x %127s %ld %ld", a, b, &e, c, &n, &m) == 6)
            frames(a, b, e, c, n, m);
        else if (sscanf(line, "flood %127s %ld", a, &n) == 2)
            flood(a, n);
        else if (sscanf(line, "stop %ld", &n) == 1)
            kill(n, 9), waitpid(n, 0, 0), puts("ok 0");
        else if (sscanf(line, "open-often %127s %ld", a, &n) == 2)
            open_often(a, n);
        else if (sscanf(line, "connect-often %127s %ld %ld", a, &n, &m) == 3)
            connect_often(a, n, m);
        else if (sscanf(line, "open %127s", a) == 1)
            open_device(a);
        else if (sscanf(line, "fork-open %127s", a) == 1)
            open_in_child(a);
        else if (sscanf(line, "map %127s", a) == 1)
            map_code(a);
        else if (sscanf(line, "ioctl %x %ld", &e, &n) == 2) {
            /* Nobody's request on a device that has none: it fails, and that is all the same. */
            int fd = open("/dev/zero", O_RDONLY);
            for (long i = 0; i < n; i++)
                ioctl(fd, e, 0);
            close(fd), puts("ok 0");
        } else if (!strcmp(line, "exec\n"))
            setenv("AGENT_EXECUTED", "1", 1), execv("/proc/self/exe", argv);
        else
            errno = ENOSYS, fail();
    }
    return 0;
}

// A driver that was taken over: it answers just enough to be asked for a context, and then tries what no driver has to.
// It writes one line for each attempt: its name, and 0 or the error.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, long result) {
    dprintf(2, "rogue %s %d\n", name, result < 0 ? errno : 0);
}

static void *nothing(void *unused) { return unused; }

static long open_and_close(const char *path, int flags) {
    int file = open(path, flags, 0600);
    if (file >= 0) close(file);
    return file;
}

// Processes to be seen besides this one; none is an error.
static long others(void) {
    DIR *processes = opendir("/proc");
    long seen = 0;
    for (struct dirent *entry; processes && (entry = readdir(processes));) {
        seen += '0' <= entry->d_name[0] && entry->d_name[0] <= '9' && atol(entry->d_name) != getpid();
    }
    errno = ESRCH;
    return seen ? seen : -1;
}

static void tries(void) {
    static const struct { const char *name; long number; } plain[] = {
        {"bpf", SYS_bpf}, {"userfaultfd", SYS_userfaultfd}, {"keyctl", SYS_keyctl},
        {"perf_event_open", SYS_perf_event_open}, {"io_uring_setup", SYS_io_uring_setup},
        {"init_module", SYS_init_module}, {"finit_module", SYS_finit_module}, {"kexec_load", SYS_kexec_load},
        {"process_vm_readv", SYS_process_vm_readv}, {"pidfd_getfd", SYS_pidfd_getfd}, {"setns", SYS_setns},
        {"pivot_root", SYS_pivot_root}, {"open_tree", SYS_open_tree}, {"fsopen", SYS_fsopen},
        {"open_by_handle_at", SYS_open_by_handle_at}, {"reboot", SYS_reboot}, {"setuid", SYS_setuid},
        {"settimeofday", SYS_settimeofday}, {"clone3", SYS_clone3}, {"vfork_like", SYS_fork},
    };
    for (unsigned each = 0; each < sizeof plain / sizeof *plain; each++) {
        errno = 0;
        long result = syscall(plain[each].number, 0, 0, 0, 0, 0, 0);
        if (plain[each].number == SYS_fork && result == 0) _exit(0);
        say(plain[each].name, result);
    }
    say("x32", syscall(0x40000000 + SYS_getpid));
    say("execve", execl("/usr/bin/true", "true", (char *)0));
    say("ptrace", ptrace(PTRACE_TRACEME, 0, 0, 0));
    say("mount", mount("none", "/tmp", "tmpfs", 0, ""));
    say("unshare_user", unshare(CLONE_NEWUSER));
    int out = socket(AF_INET, SOCK_STREAM, 0);
    say("socket_inet", out);
    say("socket_netlink", socket(AF_NETLINK, SOCK_RAW, 0));
    say("socket_packet", socket(AF_PACKET, SOCK_RAW, 0));
    say("socket_unix", socket(AF_UNIX, SOCK_STREAM, 0));
    say("read_etc_passwd", open_and_close("/etc/passwd", O_RDONLY));
    say("read_home", open_and_close("/root", O_RDONLY | O_DIRECTORY));
    say("others_seen", others());
    say("write_root", open_and_close("/made", O_WRONLY | O_CREAT));
    say("write_usr", open_and_close("/usr/made", O_WRONLY | O_CREAT));
    say("write_proc", open_and_close("/proc/sys/kernel/core_pattern", O_WRONLY));
    say("write_sys", open_and_close("/sys/kernel/uevent_helper", O_WRONLY));
    say("write_tmp", open_and_close("/tmp/made", O_WRONLY | O_CREAT));
    say("mknod", mknod("/tmp/device", S_IFCHR | 0600, 0));
    say("signal_outside", kill(getppid() ? getppid() : -1, 0));
    pthread_t thread;
    errno = pthread_create(&thread, 0, nothing, 0);
    say("thread", errno ? -1 : 0);
    if (!errno) pthread_join(thread, 0);
    say("done", 0);
}

int cuInit(unsigned flags) { (void)flags; return 0; }
int cuDriverGetVersion(int *version) { *version = 12080; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char *name, int length, int device) { (void)device; strncpy(name, "rogue", length); return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    (void)context; (void)device;
    tries();
    return 999;
}

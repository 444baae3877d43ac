/* A driver library of the tests' own: the names of the CUDA driver's synchronous calls, each a sleep of as many
 * nanoseconds as its argument says, behind the prologues that compilers put before real ones. */

#include <time.h>

/* Called instead of sleeping when the argument is negative, so that a test can leave a call without returning. */
void (*driver_escape)(void);

/* Hidden: called from the assembly below, not a call of the driver. */
__attribute__((visibility("hidden"))) long driver_wait(long ns)
{
    if (ns < 0 && driver_escape)
        driver_escape();
    if (ns > 0) {
        struct timespec left = { ns / 1000000000L, ns % 1000000000L };
        while (nanosleep(&left, &left))
            ;
    }
    return 0;
}

#define FUNCTION(name, body)                                                                                           \
    __asm__(".text\n.p2align 4\n.globl " name "\n.type " name ",@function\n" name ":\n" body ".size " name ", . - " name "\n")

/* push first: cheap at the symbol */
FUNCTION("cuCtxSynchronize", "push %rbx\ncall driver_wait\npop %rbx\nret\n");
/* endbr64 before the push: cheap four bytes on */
FUNCTION("cuStreamSynchronize", "endbr64\npush %rbx\ncall driver_wait\npop %rbx\nret\n");
/* a five-byte nop first */
FUNCTION("cuEventSynchronize", ".byte 0x0f,0x1f,0x44,0x00,0x00\npush %rbx\ncall driver_wait\npop %rbx\nret\n");
/* nothing cheap: single-stepped */
FUNCTION("cuMemcpyHtoD_v2", "sub $8,%rsp\ncall driver_wait\nadd $8,%rsp\nret\n");
/* as in NVIDIA's own libraries: a global compared, cheap at the conditional jump ten bytes on, then a jump through a pointer */
__attribute__((visibility("hidden"))) int driver_state = 0x321cba01;
__attribute__((visibility("hidden"))) long (*driver_inner)(long) = driver_wait;
FUNCTION("cuMemcpy3D_v2", "cmpl $0x321cba00,driver_state(%rip)\nje 1f\njmp *driver_inner(%rip)\n1: mov $4,%eax\nret\n");
/* a copy that synchronises inside, as drivers do for unpinned memory */
FUNCTION("cuMemcpyDtoH_v2", "push %rbx\nmov %rdi,%rbx\ncall cuStreamSynchronize@PLT\nmov %rbx,%rdi\ncall driver_wait\npop %rbx\nret\n");
/* one entry point that jumps to another: both probes share one stack frame */
FUNCTION("cuStreamSynchronize_ptsz", "jmp cuStreamSynchronize@PLT\n");
/* not a synchronous call: must not be probed */
FUNCTION("cuLaunchKernel", "push %rbx\ncall driver_wait\npop %rbx\nret\n");

/* the same address under a second name, as _v2 symbols often are */
__asm__(".globl cuCtxSynchronize_v2\n.set cuCtxSynchronize_v2, cuCtxSynchronize\n");

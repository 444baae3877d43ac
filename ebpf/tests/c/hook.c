/* What stands for the hook: calls the driver from code of its own, and not by a jump. */

typedef long (*function)(long, long, long, long, long);

__attribute__((visibility("default"), noinline)) long hook_call(function f, long a, long b, long c, long d, long e)
{
    long answer = f(a, b, c, d, e);
    __asm__ volatile("" ::: "memory");
    return answer;
}

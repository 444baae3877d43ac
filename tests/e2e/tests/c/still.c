/* A program that links nothing at run time: what is preloaded never gets into it. Opens a device by itself. */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

int main(int count, char **arguments)
{
    if (count < 2 || open(arguments[1], O_RDWR) < 0)
        printf("err %d\n", count < 2 ? 0 : errno);
    else
        printf("ok 0\n");
    return 0;
}

/* usage: say-port PORT TEXT: writes a line to an I/O port, byte by byte, and prints what a read of it gives. As root. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>

int main(int argc, char **argv)
{
    if (argc != 3 || iopl(3) != 0) {
        perror("say-port");
        return 1;
    }

    unsigned short port = (unsigned short)strtoul(argv[1], NULL, 0);
    for (const char *at = argv[2]; *at; at++)
        outb((unsigned char)*at, port);
    outb('\n', port);
    printf("0x%x\n", inb(port));
    return 0;
}

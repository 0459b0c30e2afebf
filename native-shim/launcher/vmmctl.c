/*
 * vmmctl: starts the program that carries the command out, vmm-run for `vmmctl run` and vmm-cli for everything else. It becomes that program:
 * same process, same terminal, same exit code. So a VM in the foreground loads nothing of what asks a daemon, and the other way round.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    const char *program = argc > 1 && strcmp(argv[1], "run") == 0 ? "vmm-run" : "vmm-cli";
    char path[PATH_MAX + 16];
    /* Where this file itself lies, whatever link it was called by: proc(5), /proc/self/exe. */
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX);
    if (length <= 0 || length >= PATH_MAX) {
        fprintf(stderr, "vmmctl: /proc/self/exe cannot be read, so that %s is not found: is /proc mounted?\n", program);
        return 1;
    }

    path[length] = 0;
    strcpy(strrchr(path, '/') + 1, program);
    execv(path, argv);
    fprintf(stderr, "vmmctl: %s cannot be started: %s; it belongs beside vmmctl: install the package anew\n", path, strerror(errno));
    return 1;
}

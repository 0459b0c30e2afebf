/* usage: kexec-into KERNEL INITRD CMDLINE: goes on in another kernel, as kexec(8) -s and kexec -e do. As root. */
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int kernel = open(argv[1], O_RDONLY), initrd = open(argv[2], O_RDONLY);
    if (kernel < 0 || initrd < 0) {
        perror("kexec-into: open");
        return 1;
    }

    if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1, argv[3], 0L) != 0) {
        perror("kexec-into: kexec_file_load");
        return 1;
    }

    syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_KEXEC, NULL);
    perror("kexec-into: reboot");
    return 1;
}

/*
 * Resets the machine by=cf9|92|64|fadt|bios|triple: the reset control register, system control port A, the keyboard controller, what the FADT says, a
 * jump to the BIOS entry F000:FFF0 in real mode (what Linux does on a machine without EFI), or an exception without an IDT. Stays at CPL 0 for the last two.
 */
#include "acpi.h"

const u32 guest_stays_at_cpl0 = 1;

/* To 32-bit code without paging, to 16-bit code whose segment begins here, to real mode, to F000:FFF0. */
__asm__(
    ".text\n"
    ".balign 16\n"
    "bios_gdt: .quad 0, 0x00cf9b000000ffff, 0x00009b000000ffff, 0x000093000000ffff\n"
    "bios_gdt_ptr: .word 31\n .quad bios_gdt\n"
    "bios_idt_ptr: .word 0x3ff\n .quad 0\n"
    "to_bios:\n"
    "    lea bios16(%rip), %rax\n"              /* base of the 16-bit segment */
    "    mov %ax, bios_gdt+18\n"
    "    shr $16, %eax\n"
    "    mov %al, bios_gdt+20\n"
    "    mov %ah, bios_gdt+23\n"
    "    lgdt bios_gdt_ptr\n"
    "    lidt bios_idt_ptr\n"
    "    sub $16, %rsp\n"
    "    lea bios32(%rip), %rax\n"
    "    mov %eax, (%rsp)\n"
    "    movl $8, 4(%rsp)\n"
    "    ljmp *(%rsp)\n"
    ".code32\n"
    "bios32:\n"
    "    mov %cr0, %eax\n and $0x7fffffff, %eax\n mov %eax, %cr0\n"
    "    mov $0xc0000080, %ecx\n xor %eax, %eax\n xor %edx, %edx\n wrmsr\n"
    "    xor %eax, %eax\n mov %eax, %cr4\n"
    "    ljmp $16, $0\n"
    ".code16\n"
    "bios16:\n"
    "    mov $24, %ax\n mov %ax, %ds\n mov %ax, %es\n mov %ax, %ss\n mov %ax, %fs\n mov %ax, %gs\n"
    "    mov %cr0, %eax\n and $0xfe, %al\n mov %eax, %cr0\n"
    "    ljmp $0xf000, $0xfff0\n"
    ".code64\n");
extern _Noreturn void to_bios(void);

static void by_fadt(const struct start_info *info)
{
    acpi_init(info);
    const u8 *fadt = (const u8 *)acpi_find("FACP");
    if (!fadt || !(get32(fadt + 112) & 1 << 10) || fadt[116] != 1)
        fail("the FADT has no reset register at a port");
    out8((u16)get64(fadt + 120), fadt[128]);
}

int main(struct start_info *info)
{
    static const struct { u16 limit; u64 base; } __attribute__((packed)) none;
    args_init(info);
    print("RESETTING\n");
    if (arg_is("by", "cf9")) {
        out8(0xcf9, 2);
        print("NOT YET\n");         /* bit 1 chooses the kind, bit 2 does it */
        out8(0xcf9, 6);
    } else if (arg_is("by", "92")) {
        u8 now = in8(0x92);
        if (!(now & 2))
            fail("port 0x92 says that A20 is masked: %x", now);
        out8(0x92, now);
        out8(0x92, now | 1);
    } else if (arg_is("by", "64")) {
        out8(0x64, 0xfe);
    } else if (arg_is("by", "fadt")) {
        by_fadt(info);
    } else if (arg_is("by", "bios")) {
        to_bios();
    } else if (arg_is("by", "triple")) {
        __asm__ volatile("lidt %0; ud2" : : "m"(none));
    }
    fail("still here");
}

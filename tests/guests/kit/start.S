# PVH entry for a micro-guest (Xen "PVH" boot protocol, x86/HVM direct boot ABI): 32-bit protected mode, paging off,
# EBX = physical address of hvm_start_info. A few dozen CPL 0 instructions lead to a ring 3 main(): on an emulating KVM every
# CPL 0 instruction is slow, so the page tables, the GDT and the IDT are data in the image, not built by code.

        .set    CS0, 0x08
        .set    DS0, 0x10
        # sysretq takes CS = STAR[63:48]+16 and SS = STAR[63:48]+8 (both with RPL 3).
        .set    STAR_HI, 0x23           # ring 3: CS 0x33, SS 0x2b, the selectors Linux uses
        .set    PD_COUNT, 12            # gigabytes mapped
        # Fixed by guest.ld, so that gates and descriptors are plain data.
        .set    STUBS_LO, 0
        .set    STUBS_HI, 0x100
        .set    TSS_LO, 0x1000

        .section .note.Xen, "a", @note
        .balign 4
        .long   4, 4, 18                # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
        .asciz  "Xen"
        .long   _start

        .section .text.start, "ax"
        .code32
        .globl  _start
_start:
        mov     $pml4, %eax
        mov     %eax, %cr3
        mov     $0x6a0, %eax            # PAE, PGE=0x80, OSFXSR, OSXMMEXCPT
        mov     %eax, %cr4
        mov     $0xc0000080, %ecx       # EFER
        xor     %edx, %edx
        mov     $0x101, %eax            # LME | SCE
        wrmsr
        mov     $0x80010033, %eax       # PG | WP | NE | ET | MP | PE
        mov     %eax, %cr0
        lgdt    gdt_ptr
        ljmp    $CS0, $1f
        .code64
1:      mov     $DS0, %ecx
        mov     %ecx, %ss
        mov     $stack0_top, %esp
        lidt    idt_ptr
        mov     $0x38, %ecx
        ltr     %cx
        mov     $0xc0000081, %ecx       # STAR
        mov     $((STAR_HI << 16) | CS0), %edx
        xor     %eax, %eax
        wrmsr
        fninit
        mov     %ebx, %edi
        cmpl    $0, guest_stays_at_cpl0(%rip)
        jne     2f
        mov     $0x2b, %ecx             # no ring 0 selectors left at CPL 3
        mov     %ecx, %ds
        mov     %ecx, %es
        mov     $stack3_top - 8, %esp
        mov     $ring3, %ecx
        mov     $0x3002, %r11d          # IOPL 3
        sysretq
2:      call    main
        jmp     3f
ring3:  call    main
3:      mov     %eax, %edi
        .globl  debug_exit
debug_exit:                             # debug_exit(code): port 0xf4, then spin (hlt is privileged)
        mov     $0xf4, %edx
        mov     %edi, %eax
        out     %eax, %dx
4:      pause
        jmp     4b

        .weak   guest_stays_at_cpl0
        .section .rodata
        .balign 4
guest_stays_at_cpl0:
        .long   0

        # Exceptions: vector on the stack, then a line on the serial port and debug exit 0xEE.
        .text
        .altmacro
        .macro  stub n
        .balign 16
        .if ((n != 8) && (n != 10) && (n != 11) && (n != 12) && (n != 13) && (n != 14) && (n != 17))
        push    $0
        .endif
        push    $\n
        jmp     exception
        .endm
        .macro  gate n
        .word   STUBS_LO + n * 16, CS0
        .word   0x8e00, STUBS_HI
        .quad   0
        .endm
        .section .text.stubs, "ax"      # the linker script gives this section a fixed address, so the IDT can be data
stubs:
        .set    i, 0
        .rept   32
        stub    %i
        .set    i, i + 1
        .endr

        .text
exception:
        mov     (%rsp), %edi
        mov     8(%rsp), %rsi
        mov     16(%rsp), %rdx
        mov     %cr2, %rcx
        and     $-16, %rsp
        call    report_exception        # integer-only code: the emulator has no SSE arithmetic
        mov     $0xee, %edi
        jmp     debug_exit

        .data
        .balign 16
gdt:    .quad   0
        .quad   0x00af9b000000ffff      # 08 ring 0 code, 64 bit
        .quad   0x00cf93000000ffff      # 10 ring 0 data
        .quad   0, 0
        .quad   0x00cff3000000ffff      # 28 ring 3 data
        .quad   0x00affb000000ffff      # 30 ring 3 code, 64 bit
        .word   8296, TSS_LO            # 38 TSS
        .word   0x8900, 0x0100          # base 23:16 = 0, type 9, present; base 31:24 = 1
        .quad   0
gdt_end:
gdt_ptr: .word  gdt_end - gdt - 1
        .quad   gdt
        .balign 16
idt_ptr: .word  32 * 16 - 1
        .quad   idt
        .balign 16
        .globl  idt
idt:
        .set    i, 0
        .rept   32
        gate    %i
        .set    i, i + 1
        .endr
        .section .data.tss, "aw"
tss:    .long   0
        .quad   stack0_top
        .fill   88, 1, 0
        .word   0, 104
        .fill   8192, 1, 0              # I/O permission bitmap: all ports; some KVMs drop IOPL at the way to CPL 3
        .byte   0xff

        # Page tables: identity map of PD_COUNT GiB with user access, all data. 2 MiB pages.
        .section .data.pt, "aw"
        .balign 4096
pml4:   .quad   pdpt + 0x27
        .fill   511, 8, 0
pdpt:
        .set    i, 0
        .rept   PD_COUNT
        .quad   pds + i * 4096 + 0x27
        .set    i, i + 1
        .endr
        .fill   512 - PD_COUNT, 8, 0
pds:
        .set    i, 0
        .rept   PD_COUNT * 512
        .quad   (i << 21) + 0xe7        # present, write, user, accessed, dirty, 2 MiB
        .set    i, i + 1
        .endr

        .section .bss.stacks, "aw", @nobits
        .balign 4096
        .skip   8192
stack0_top:
        .skip   65536
stack3_top:

        .section .note.GNU-stack, "", @progbits

/* A VM of one vCPU and 2 MiB of RAM for the C tests and benchmarks: 64-bit mode, CPL 0 or 3, IOPL 3, code at 0x10000. */
#ifndef TINY_VM_H
#define TINY_VM_H

#include "../kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define TINY_RAM (2u << 20)
#define TINY_CODE 0x10000u

struct tiny_vm {
    intptr_t kvm, vm, ram, vcpu;
    int32_t map_length;
};

static inline void tiny_put(const struct tiny_vm *t, uint64_t at, uint64_t value)
{
    memcpy((char *)t->ram + at, &value, sizeof(value));
}

static inline struct kvm_segment tiny_segment(uint16_t selector, uint8_t type, uint8_t dpl)
{
    struct kvm_segment s = {.selector = selector, .type = type, .dpl = dpl, .limit = 0xffffffff, .present = 1, .s = 1, .g = 1, .db = 1};
    return s;
}

/* 0, or -errno of the first call that failed. */
static inline int32_t tiny_start(struct tiny_vm *t, int cpl, const void *code, size_t length)
{
    int32_t err;
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = TINY_CODE, .rflags = cpl == 3 ? 0x3002 : 2, .rsp = 0x80000};

    t->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (t->kvm < 0) {
        return -errno;
    }
    t->map_length = vmm_ioctl(t->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
    t->vm = vmm_ioctl_fd(t->kvm, KVM_CREATE_VM, NULL, &err);
    if (t->vm < 0) {
        return -err;
    }
    void *ram = mmap(NULL, TINY_RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ram == MAP_FAILED) {
        return -errno;
    }
    t->ram = (intptr_t)ram;
    struct kvm_userspace_memory_region region = {.memory_size = TINY_RAM, .userspace_addr = (uint64_t)t->ram};
    err = vmm_ioctl(t->vm, KVM_SET_USER_MEMORY_REGION, &region);
    if (err < 0) {
        return err;
    }
    (void)vmm_ioctl(t->vm, KVM_SET_TSS_ADDR, (void *)0xfffbd000);
    t->vcpu = vmm_vcpu_create(t->vm, 0, (uint64_t)t->map_length, &err);
    if (t->vcpu == -1) {
        return -err;
    }
    struct { struct kvm_cpuid2 head; struct kvm_cpuid_entry2 entries[256]; } cpuid = {.head = {.nent = 256}};
    err = vmm_ioctl(t->kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
    if (err < 0 || (err = vmm_vcpu_ioctl(t->vcpu, KVM_SET_CPUID2, &cpuid)) < 0) {
        return err;
    }

    tiny_put(t, 0x1000, 0x2007);             /* PML4 -> PDPT -> one 2 MiB page, user, writable */
    tiny_put(t, 0x2000, 0x3007);
    tiny_put(t, 0x3000, 0x87);
    tiny_put(t, 0x5010, 0x00af9b000000ffff); /* GDT: kernel code, kernel data, user data, user code */
    tiny_put(t, 0x5018, 0x00cf93000000ffff);
    tiny_put(t, 0x5028, 0x00cff3000000ffff);
    tiny_put(t, 0x5030, 0x00affb000000ffff);
    memcpy((char *)t->ram + TINY_CODE, code, length);

    err = vmm_vcpu_ioctl(t->vcpu, KVM_GET_SREGS, &sregs);
    if (err < 0) {
        return err;
    }
    sregs.cr0 = 0x80050033;
    sregs.cr3 = 0x1000;
    sregs.cr4 = 0x620;
    sregs.efer = 0xd01;
    sregs.gdt.base = 0x5000;
    sregs.gdt.limit = 0x37;
    sregs.cs = tiny_segment(cpl == 3 ? 0x33 : 0x10, 0xb, (uint8_t)cpl);
    sregs.cs.l = 1;
    sregs.cs.db = 0;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = tiny_segment(cpl == 3 ? 0x2b : 0x18, 3, (uint8_t)cpl);
    err = vmm_vcpu_ioctl(t->vcpu, KVM_SET_SREGS, &sregs);
    return err < 0 ? err : vmm_vcpu_ioctl(t->vcpu, KVM_SET_REGS, &regs);
}

static inline void tiny_stop(struct tiny_vm *t)
{
    vmm_vcpu_destroy(t->vcpu);
    close((int)t->vm);
    close((int)t->kvm);
    munmap((void *)t->ram, TINY_RAM);
}

#endif

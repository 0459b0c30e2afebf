/*
 * What one exit costs in C: a guest that does nothing but OUT, at CPL 0 or 3. Usage: pio_loop [cpl] [exits]
 * Prints nanoseconds from program start to the first exit, and per exit afterwards, and the TSC rate. perf/ compares the C# loop with the second number.
 */
#include "../tests/tiny_vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void run_to_exit(struct tiny_vm *vm, struct kvm_run *run)
{
    int32_t answer;
    do {
        answer = vmm_vcpu_run(vm->vcpu);
    } while (answer == -EINTR);
    if (answer != 0 || run->exit_reason != KVM_EXIT_IO) {
        fprintf(stderr, "pio_loop: KVM_RUN answered %d, exit reason %u\n", answer, run->exit_reason);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    static const unsigned char code[] = {0xe6, 0x80, 0xeb, 0xfc}; /* l: out 0x80, al; jmp l */
    int cpl = argc > 1 ? atoi(argv[1]) : 3;
    long exits = argc > 2 ? atol(argv[2]) : 100000;
    struct tiny_vm vm;
    int64_t start = now();

    if ((cpl != 0 && cpl != 3) || exits <= 0) {
        fprintf(stderr, "usage: pio_loop [0|3] [exits]\n");
        return 2;
    }
    int32_t answer = tiny_start(&vm, cpl, code, sizeof(code));
    if (answer < 0) {
        fprintf(stderr, "pio_loop: cannot start the guest: %s\n", strerror(-answer));
        return 1;
    }
    struct kvm_run *run = (struct kvm_run *)vmm_vcpu_run_page(vm.vcpu);
    run_to_exit(&vm, run);
    int64_t first = now();
    uint64_t first_tsc = __rdtsc();
    for (long i = 0; i < exits; i++) {
        run_to_exit(&vm, run);
    }
    int64_t end = now();
    uint64_t ticks = __rdtsc() - first_tsc;
    printf("cpl=%d exits=%ld first_exit_ns=%lld ns_per_exit=%.1f tsc_khz=%.0f\n", cpl, exits, (long long)(first - start), (double)(end - first) / (double)exits,
           (double)ticks * 1e6 / (double)(end - first));
    tiny_stop(&vm);
    return 0;
}

/* Holds known values in general and XMM registers through native loops of every= iterations, checks them, prints a line; after
   ticks= lines (0: for ever) exit 0. A vCPU saved and restored anywhere in a loop must go on with the same values. */
#include "kit.h"

int main(struct start_info *info)
{
    args_init(info);
    u64 every = arg_number("every", 50000000), ticks = arg_number("ticks", 10);
    for (u64 tick = 1; !ticks || tick <= ticks; tick++) {
        u64 a = tick * 0x1111111111111111ull, b = ~a, left = every, x0, x15, r8_end, r9_end, count = 0;
        __asm__ volatile(
            "movq %[a], %%xmm0\n movq %[b], %%xmm15\n mov %[a], %%r8\n mov %[b], %%r9\n"
            "1: add $1, %[count]\n dec %[left]\n jnz 1b\n"
            "movq %%xmm0, %[x0]\n movq %%xmm15, %[x15]\n mov %%r8, %[r8]\n mov %%r9, %[r9]\n"
            : [left] "+r"(left), [count] "+r"(count), [x0] "=&r"(x0), [x15] "=&r"(x15), [r8] "=m"(r8_end), [r9] "=m"(r9_end)
            : [a] "r"(a), [b] "r"(b) : "r8", "r9", "cc");
        if (x0 != a || x15 != b || r8_end != a || r9_end != b || count != every) {
            print("CORRUPT tick=%lu xmm0=0x%lx xmm15=0x%lx count=%lu\n", tick, x0, x15, count);
            return 2;
        }
        print("TICK spin %lu\n", tick);
    }
    print("RESULT spin ticks=%lu\n", ticks);
    return 0;
}

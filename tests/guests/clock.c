/*
 * mode=rates: the TSC's rate by the PM timer of the FADT, by the PIT's channel 2 with its gate at port 0x61, and by kvmclock.
 * mode=pause: kvmclock on this processor and, when there is one, on the one with APIC id 1; tells when KVM has said on each of them that the machine was
 * paused, and, at a byte on the serial port, how much time passed by each clock. Stays at CPL 0, for the MSRs.
 */
#include "acpi.h"

const u32 guest_stays_at_cpl0 = 1;

struct pvclock { u32 version, pad; u64 tsc, time; u32 mul; int8_t shift; u8 flags, pad2[2]; };   /* Documentation/virt/kvm/x86/msr.rst */
enum { GUEST_STOPPED = 2, SYSTEM_TIME = 0x4b564d01 };

static volatile struct pvclock *const own = (volatile struct pvclock *)0x7000, *const other = (volatile struct pvclock *)0x7100;
static volatile u32 *const other_runs = (volatile u32 *)0x7200;
static u16 pm_port;

static void wrmsr(u32 msr, u64 value) { __asm__ volatile("wrmsr" : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)) : "memory"); }

static u64 scale(u64 cycles, u32 mul, int8_t shift)
{
    cycles = shift < 0 ? cycles >> -shift : cycles << shift;
    return (u64)((unsigned __int128)cycles * mul >> 32);
}

static u64 kvm_time(void)
{
    for (;;) {
        u32 version = own->version;
        u64 now = own->time + scale(rdtsc() - own->tsc, own->mul, own->shift);
        if (!(version & 1) && version == own->version)
            return now;
    }
}

static u64 kvm_khz(void)
{
    u64 khz = (1000000ull << 32) / own->mul;
    return own->shift < 0 ? khz << -own->shift : khz >> own->shift;
}

/* The other processor, from SIPI on, in real mode: its own kvmclock, then nothing. */
__asm__(
    ".text\n.code16\n"
    "ap: xor %ax, %ax\n mov %ax, %ds\n"
    "    mov $0x4b564d01, %ecx\n mov $0x7101, %eax\n xor %edx, %edx\n wrmsr\n"
    "    movl $1, 0x7200\n"
    "1:  pause\n jmp 1b\n"
    "ap_end:\n.code64\n");
extern const u8 ap[], ap_end[];

static bool start_other(void)
{
    memcpy((void *)0x8000, ap, (size_t)(ap_end - ap));
    *other_runs = 0;
    wrmsr(0x1b, 0xfee00d00);            /* x2APIC mode */
    wrmsr(0x830, 1ull << 32 | 0x4500);  /* INIT */
    wrmsr(0x830, 1ull << 32 | 0x4608);  /* SIPI, page 8 */
    for (u64 end = rdtsc() + 20000000000ull; rdtsc() < end;)
        if (*other_runs)
            return true;
    return false;
}

static u32 pm_time(void) { return in32(pm_port); }

static void find_pm_timer(const struct start_info *info)
{
    acpi_init(info);
    const u8 *fadt = (const u8 *)acpi_find("FACP");
    if (!fadt || fadt[91] != 4 || fadt[208] != 1 || fadt[209] != 32 || get32(fadt + 76) != get64(fadt + 212))
        fail("the FADT has no PM timer");
    pm_port = (u16)get32(fadt + 76);
}

/* One moment by a clock and by the TSC: of several readings the one that took least, so that nobody was taken away in between. */
struct moment { u64 tsc, time; };

static u64 pm_time64(void) { return pm_time(); }

static struct moment moment(u64 (*clock)(void))
{
    struct moment best = { 0, 0 };
    u64 least = ~0ull;
    for (unsigned i = 0; i < 20; i++) {
        u64 before = rdtsc(), time = clock(), took = rdtsc() - before;
        if (took < least) {
            least = took;
            best = (struct moment){ before + took / 2, time };
        }
    }
    return best;
}

/* The TSC's rate by a clock of so many counts a second, over at least a tenth of one. */
static u64 khz_by(u64 (*clock)(void), u64 rate, u64 mask)
{
    struct moment first = moment(clock), last;
    do
        last = moment(clock);
    while (((last.time - first.time) & mask) < rate / 10);
    return (last.tsc - first.tsc) * (rate / 1000) / ((last.time - first.time) & mask);
}

/*
 * Channel 2, mode 0: its output, bit 5 of port 0x61, rises at the end of the count, 54.9 ms. (KVM's timer counts with its gate, bit 0, closed, too.) A
 * processor that was taken away in the end finds out late: the least of several tries counts.
 */
static u64 khz_by_pit(void)
{
    u64 least = ~0ull;
    for (unsigned tries = 0; tries < 8; tries++) {
        out8(0x61, (in8(0x61) & ~2) | 1);
        out8(0x43, 0xb0);
        u64 begin = rdtsc();
        out8(0x42, 0xff);
        out8(0x42, 0xff);
        bool early = in8(0x61) & 0x20;
        while (!(in8(0x61) & 0x20))
            ;
        u64 khz = (rdtsc() - begin) * 1193182 / 65535 / 1000;
        least = !early && khz < least ? khz : least;
    }
    return least;
}

static int tell_pause(void)
{
    bool two = arg_number("cpus", 1) > 1;
    if (two && !start_other())
        fail("the other processor does not start");
    u64 kvm = kvm_time(), tsc = rdtsc(), pm_gone = 0;
    u32 pm = pm_time();
    bool own_told = false, other_told = !two;
    print("READY\n");
    while (!(in8(0x3fd) & 1)) {
        u32 now = pm_time();            /* it wraps */
        pm_gone += now - pm;
        pm = now;
        if (!own_told && (own->flags & GUEST_STOPPED)) {
            own_told = true;
            print("STOPPED 0\n");
        }
        if (!other_told && (other->flags & GUEST_STOPPED)) {
            other_told = true;
            print("STOPPED 1\n");
        }
    }
    u64 now = rdtsc();
    print("RESULT pause kvm_ms=%lu pm_ms=%lu tsc_ms=%lu told=%u\n", (kvm_time() - kvm) / 1000000, pm_gone * 1000 / 3579545, (now - tsc) / kvm_khz(), own_told && other_told);
    return 0;
}

int main(struct start_info *info)
{
    args_init(info);
    find_pm_timer(info);
    wrmsr(SYSTEM_TIME, (u64)own | 1);
    if (own->mul == 0)
        fail("no kvmclock");
    if (arg_is("mode", "pause"))
        return tell_pause();
    u64 pm = khz_by(pm_time64, 3579545, 0xffffffff), pit = khz_by_pit(), kvm = khz_by(kvm_time, 1000000000, ~0ull);
    print("RESULT clock pm_khz=%lu pit_khz=%lu kvm_khz=%lu\n", pm, pit, kvm);
    return 0;
}
